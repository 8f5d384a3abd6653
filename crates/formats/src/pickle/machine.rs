//! The stack machine of the pickle format, without anything that runs code.

use std::collections::HashMap;

use crate::FileProblem;
use crate::pickle::globals::Global;
use crate::pickle::objects::Objects;
use crate::pickle::refusal::refuse;
use crate::pickle::value::{MAX_NAME_BYTES, Span, Value, name};

/// Opcodes per pickle of a small file; a network of 10,000 tensors needs about 350,000.
const MIN_WORK: usize = 480_000;
/// Of a large file, one opcode for so many bytes: histories of a training beside the weights, in a small multiple of
/// the file.
const BYTES_PER_WORK: usize = 32;

/// Reads opcodes and keeps the stack, the memo and what has been built.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Position of the next opcode.
    pub(super) at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at the open `MARK`s.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// What the values on the stack refer to.
    pub(super) objects: Objects,
    /// Opcodes and copied items still allowed.
    work_left: usize,
}

impl<'a> Machine<'a> {
    /// For the pickle at the start of `bytes`, in a file of `n_file_bytes`.
    pub(super) fn new(bytes: &'a [u8], n_file_bytes: usize) -> Self {
        Self {
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Objects::default(),
            work_left: bytes.len().saturating_mul(4).min(MIN_WORK + n_file_bytes / BYTES_PER_WORK),
        }
    }

    /// The value left at `STOP`.
    pub(super) fn run(&mut self) -> Result<Value, FileProblem> {
        loop {
            self.work(1)?;
            let at = self.at;
            let op = self.number::<1>()? as u8;
            match op {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                // PROTO; FRAME only announces how many bytes come next.
                0x80 => self.protocol()?,
                0x95 => drop(self.take(8)?),
                _ => {
                    let known = self.constant(op)?
                        || self.container(op)?
                        || self.set(op)?
                        || self.memory(op)?
                        || self.object(op)?;
                    if !known {
                        return Err(FileProblem::malformed(
                            "pickle",
                            format!("opcode 0x{op:02x} at byte {at} is not one a state dict is made of"),
                        ));
                    }
                }
            }
        }
    }

    fn protocol(&mut self) -> Result<(), FileProblem> {
        match self.number::<1>()? {
            0..=5 => Ok(()),
            version => Err(self.fail(&format!("expected pickle protocol 0 to 5, got {version}"))),
        }
    }

    /// Numbers, strings, `None`.
    fn constant(&mut self, op: u8) -> Result<bool, FileProblem> {
        let value = match op {
            b'N' => Value::Opaque,
            0x88 | 0x89 => Value::Bool(op == 0x88),
            b'K' => Value::Int(self.number::<1>()? as i64),
            b'M' => Value::Int(self.number::<2>()? as i64),
            b'J' => Value::Int(i64::from(self.number::<4>()? as u32 as i32)),
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            b'G' => self.skip(8)?,
            b'X' => self.string::<4>()?,
            0x8c => self.string::<1>()?,
            0x8d => self.string::<8>()?,
            // Strings of Python 2, whose state dicts are still around.
            b'U' => self.string::<1>()?,
            b'T' => self.string::<4>()?,
            b'C' => self.string::<1>().map(|_| Value::Opaque)?,
            b'B' => self.string::<4>().map(|_| Value::Opaque)?,
            // Bytes and bytearrays of more than 4 GiB are announced in 8 bytes.
            0x8e | 0x96 => self.string::<8>().map(|_| Value::Opaque)?,
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    /// Tuples, lists, dicts.
    fn container(&mut self, op: u8) -> Result<bool, FileProblem> {
        match op {
            b')' | b']' => self.push_sequence(Vec::new()),
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push_sequence(items);
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                let from = self.stack.len().checked_sub(n).filter(|&from| from >= self.floor());
                let items = self.stack.split_off(from.ok_or_else(|| self.fail("the stack is empty"))?);
                self.push_sequence(items);
            }
            b'}' => self.push_dict(),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_dict();
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sets, into which nobody looks.
    fn set(&mut self, op: u8) -> Result<bool, FileProblem> {
        match op {
            // EMPTY_SET
            0x8f => self.stack.push(Value::Opaque),
            // ADDITEMS
            0x90 => {
                self.pop_to_mark()?;
                match self.top()? {
                    Value::Opaque => {}
                    other => return Err(self.fail(&format!("expected a set to add to, got {}", other.kind()))),
                }
            }
            // FROZENSET
            0x91 => {
                self.pop_to_mark()?;
                self.stack.push(Value::Opaque);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Stack and memo.
    fn memory(&mut self, op: u8) -> Result<bool, FileProblem> {
        match op {
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            b'q' => {
                let key = self.number::<1>()? as u32;
                self.memo.insert(key, self.top()?);
            }
            b'r' => {
                let key = self.number::<4>()? as u32;
                self.memo.insert(key, self.top()?);
            }
            0x94 => {
                let key = self.memo.len() as u32;
                self.memo.insert(key, self.top()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Globals and what is built with them.
    fn object(&mut self, op: u8) -> Result<bool, FileProblem> {
        let value = match op {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?
            }
            0x93 => {
                let (name_value, module_value) = (self.pop()?, self.pop()?);
                match (name(self.bytes, module_value), name(self.bytes, name_value)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err(self.fail("STACK_GLOBAL expects two names")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.objects.storage(self.bytes, id).map_err(|e| self.fail(&e))?
            }
            // REDUCE and NEWOBJ: a global applied to a tuple.
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.apply(callable, arguments)?
            }
            // NEWOBJ_EX: the same with arguments by keyword, which none of what is read here takes.
            0x92 => {
                let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.apply(callable, arguments)?
            }
            b'b' => self.build()?,
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    /// BUILD: attributes of the object below, such as the `_metadata` of a state dict; none is read.
    fn build(&mut self) -> Result<Value, FileProblem> {
        self.pop()?;
        match self.pop()? {
            target @ (Value::Dict(_) | Value::Tensor(_) | Value::Odd(_) | Value::NumpyArray | Value::Opaque) => {
                Ok(target)
            }
            other => Err(self.fail(&format!("BUILD cannot give attributes to {}", other.kind()))),
        }
    }

    fn global(&self, module: &str, name: &str) -> Result<Value, FileProblem> {
        match Global::resolve(module, name) {
            Some(global) => Ok(Value::Global(global)),
            None => Err(refuse(self.bytes, self.at, &self.stack, &format!("{module}.{name}"))),
        }
    }

    fn apply(&mut self, callable: Value, arguments: Value) -> Result<Value, FileProblem> {
        let Value::Global(global) = callable else {
            return Err(self.fail(&format!("expected a global to apply, got {}", callable.kind())));
        };
        let Value::Sequence(arguments) = arguments else {
            return Err(self.fail(&format!("expected a tuple of arguments, got {}", arguments.kind())));
        };
        let n_copied = self.objects.n_copied_by(global, arguments);
        self.work(n_copied)?;
        self.objects.apply(global, arguments).map_err(|e| self.fail(&e))
    }

    fn push_sequence(&mut self, items: Vec<Value>) {
        let value = self.objects.new_sequence(items);
        self.stack.push(value);
    }

    fn push_dict(&mut self) {
        let value = self.objects.new_dict();
        self.stack.push(value);
    }

    fn append(&mut self, items: &[Value]) -> Result<(), FileProblem> {
        match self.top()? {
            Value::Sequence(id) => self.objects.sequences[id].extend_from_slice(items),
            other => return Err(self.fail(&format!("expected a list to append to, got {}", other.kind()))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value]) -> Result<(), FileProblem> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(id) if rest.is_empty() => self.objects.dicts[id].extend(pairs.iter().map(|&[k, v]| (k, v))),
            other => {
                let problem = format!("expected keys and values for a dict, got {} for {}", items.len(), other.kind());
                return Err(self.fail(&problem));
            }
        }
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), FileProblem> {
        let key = self.number::<N>()? as u32;
        let value = *self.memo.get(&key).ok_or_else(|| self.fail(&format!("memo {key} was never stored")))?;
        self.stack.push(value);
        Ok(())
    }

    fn work(&mut self, n: usize) -> Result<(), FileProblem> {
        self.work_left =
            self.work_left.checked_sub(n).ok_or_else(|| self.fail("too many operations for a state dict"))?;
        Ok(())
    }

    /// Values below the last `MARK` are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value, FileProblem> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| self.fail("the stack is empty"))
    }

    fn pop(&mut self) -> Result<Value, FileProblem> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, FileProblem> {
        let floor = self.marks.pop().ok_or_else(|| self.fail("no mark is open"))?;
        Ok(self.stack.split_off(floor))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], FileProblem> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.fail(&format!("{n} more bytes expected, the file is truncated")))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, n: usize) -> Result<Value, FileProblem> {
        self.take(n).map(|_| Value::Opaque)
    }

    /// A little-endian unsigned number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, FileProblem> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// A string after its length of `N` bytes.
    fn string<const N: usize>(&mut self) -> Result<Value, FileProblem> {
        let length = self.number::<N>()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.take(length)?;
        Ok(Value::Str(Span { start: self.at - length, end: self.at }))
    }

    /// A signed number after its length in bytes, which is one of `N` bytes.
    fn long<const N: usize>(&mut self) -> Result<Value, FileProblem> {
        let length = self.number::<N>()? as usize;
        let bytes = self.take(length)?;
        if length > 8 {
            return Ok(Value::BigInt(Span { start: self.at - length, end: self.at }));
        }
        let sign = if bytes.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 };
        let mut full = [sign; 8];
        full[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(full)))
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, FileProblem> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(MAX_NAME_BYTES + 1).position(|&b| b == b'\n');
        let length = length.ok_or_else(|| self.fail("a name without end"))?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| self.fail("a name that is not UTF-8"))
    }

    fn fail(&self, problem: &str) -> FileProblem {
        FileProblem::malformed("pickle", format!("{problem} (at byte {})", self.at))
    }
}
