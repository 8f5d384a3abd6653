//! The header of NumPy's `.npy` format, versions 1 to 3: a Python dict of an array's type, order and extents. It is
//! read as text; nothing is executed.

use std::io::Read;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read; NumPy itself refuses those over 10,000 bytes.
const HEADER_BYTES_MAX: usize = 1 << 16;
/// Axes of an array; NumPy allows so many.
const RANK_MAX: usize = 64;

/// What the header of an array says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NpyHeader {
    /// Type of the elements as NumPy writes it, such as `|u1` or `<f4`; what is no such word is given as it stands.
    pub(crate) dtype: String,
    /// Extents, the last axis being the one that is contiguous.
    pub(crate) shape: Vec<usize>,
    /// Bytes of the header, which the elements follow.
    pub(crate) n_header_bytes: u64,
}

impl NpyHeader {
    /// Reads the header at the beginning of `reader`.
    ///
    /// # Errors
    /// Bytes that are no array of NumPy's, and arrays in Fortran's order.
    pub(crate) fn read(reader: &mut impl Read) -> Result<Self, String> {
        let mut start = [0; 8];
        let n = read_up_to(reader, &mut start)?;
        if n < start.len() || !start.starts_with(MAGIC) {
            return Err(not_an_array(&start[..n]));
        }
        let length_bytes = match start[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(format!("has version {version} of the format, 1 to 3 are read")),
        };
        let mut length = [0; 4];
        let truncated = |_| "is truncated in its header".to_owned();
        reader.read_exact(&mut length[..length_bytes]).map_err(truncated)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(format!("has a header of {length} bytes, at most {HEADER_BYTES_MAX} are read"));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(truncated)?;
        let (dtype, shape) = fields(&text)?;
        Ok(Self { dtype, shape, n_header_bytes: (start.len() + length_bytes + length) as u64 })
    }

    /// As messages show it: `uint8 of shape (60000, 28, 28)`.
    pub(crate) fn described(&self) -> String {
        let extents: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if extents.len() == 1 { "," } else { "" };
        format!("{} of shape ({}{comma})", dtype_name(&self.dtype), extents.join(", "))
    }

    /// Number of elements.
    ///
    /// # Errors
    /// More than can be counted.
    pub(crate) fn n_elements(&self) -> Result<u64, String> {
        let n = self.shape.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent as u64));
        n.ok_or_else(|| format!("declares {}, more elements than there can be", self.described()))
    }
}

fn read_up_to(reader: &mut impl Read, out: &mut [u8]) -> Result<usize, String> {
    let mut n = 0;
    while n < out.len() {
        match reader.read(&mut out[n..]).map_err(|error| error.to_string())? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

fn not_an_array(start: &[u8]) -> String {
    match start {
        [0x80, 2..=5, ..] => {
            "is a pickle, which may run any program and is not read; save arrays with numpy.save or numpy.savez"
        }
        [0x89, b'H', b'D', b'F', ..] => "is an HDF5 file; save its arrays with numpy.save or numpy.savez",
        _ if MAGIC.starts_with(start) || start.starts_with(MAGIC) => "is truncated in its header",
        _ => "is no array of NumPy's: expected a file of numpy.save (.npy) or numpy.savez (.npz)",
    }
    .to_owned()
}

/// NumPy's own name of a type, where it is a common one.
fn dtype_name(dtype: &str) -> String {
    let (order, code) = dtype.split_at_checked(1).unwrap_or(("", dtype));
    let name = match code {
        "b1" => "bool",
        "i1" => "int8",
        "i2" => "int16",
        "i4" => "int32",
        "i8" => "int64",
        "u1" => "uint8",
        "u2" => "uint16",
        "u4" => "uint32",
        "u8" => "uint64",
        "f2" => "float16",
        "f4" => "float32",
        "f8" => "float64",
        "c8" => "complex64",
        "c16" => "complex128",
        _ => return format!("type '{dtype}'"),
    };
    let is_foreign = order == ">" && !matches!(code, "b1" | "i1" | "u1");
    if is_foreign { format!("{name} (big-endian)") } else { name.to_owned() }
}

/// Type and extents.
fn fields(text: &[u8]) -> Result<(String, Vec<usize>), String> {
    let malformed =
        || "has a header that is no dict of descr, fortran_order and shape; is the file damaged?".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let mut parser = Parser { text, at: 0 };
    let (mut dtype, mut is_fortran, mut shape) = (None, None, None);
    parser.expect("{").ok_or_else(malformed)?;
    while parser.expect("}").is_none() {
        let key = parser.quoted().ok_or_else(malformed)?;
        parser.expect(":").ok_or_else(malformed)?;
        match key {
            "descr" => dtype = Some(parser.quoted().ok_or_else(no_plain_type)?.to_owned()),
            "fortran_order" => is_fortran = Some(parser.truth().ok_or_else(malformed)?),
            "shape" => shape = Some(parser.extents().ok_or_else(malformed)?),
            _ => return Err(malformed()),
        }
        if parser.expect(",").is_none() && !parser.rest().starts_with('}') {
            return Err(malformed());
        }
    }
    let (Some(dtype), Some(is_fortran), Some(shape)) = (dtype, is_fortran, shape) else { return Err(malformed()) };
    if dtype.contains('O') {
        return Err("holds Python objects, which only their own code can rebuild; nothing was executed; save arrays of numbers, \
                    for example after numpy.stack"
            .into());
    }
    // With one axis that is longer than 1 both orders are the same.
    if is_fortran && shape.iter().filter(|&&extent| extent > 1).count() > 1 {
        return Err("is in Fortran's order; save numpy.ascontiguousarray(array)".into());
    }
    Ok((dtype, shape))
}

fn no_plain_type() -> String {
    "has elements of several fields; save each field as an array of its own".to_owned()
}

/// The few literals of Python that a header is made of.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    /// Passes over `word`, if it is next.
    fn expect(&mut self, word: &str) -> Option<()> {
        self.rest().starts_with(word).then(|| self.at += word.len())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|&c| c == '\'' || c == '"')?;
        let (inner, _) = rest[1..].split_once(quote)?;
        self.at += inner.len() + 2;
        Some(inner)
    }

    fn truth(&mut self) -> Option<bool> {
        self.expect("True").map(|()| true).or_else(|| self.expect("False").map(|()| false))
    }

    /// `(60000, 28, 28)`; Python 2 wrote `60000L`.
    fn extents(&mut self) -> Option<Vec<usize>> {
        let mut extents = Vec::new();
        self.expect("(")?;
        while self.expect(")").is_none() {
            let rest = self.rest();
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            extents.push(rest[..digits].parse().ok()?);
            self.at += digits;
            let _ = self.expect("L");
            if extents.len() > RANK_MAX || (self.expect(",").is_none() && !self.rest().starts_with(')')) {
                return None;
            }
        }
        Some(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dict: &str) -> Vec<u8> {
        let length = dict.len() as u32;
        let n = if version == 1 { 2 } else { 4 };
        [MAGIC, &[version, 0], &length.to_le_bytes()[..n], dict.as_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Result<NpyHeader, String> {
        NpyHeader::read(&mut &bytes[..])
    }

    #[test]
    fn headers_of_every_version_are_read() {
        for version in 1..=3 {
            let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 28L, 28), }   \n";
            let header = read(&file(version, dict)).unwrap();
            assert_eq!((header.dtype.as_str(), header.shape.as_slice()), ("<f4", &[60000, 28, 28][..]));
            assert_eq!(header.described(), "float32 of shape (60000, 28, 28)");
            assert_eq!(header.n_header_bytes, file(version, dict).len() as u64);
        }
        let labels = read(&file(1, "{\"shape\": (5,), \"descr\": \">i8\", \"fortran_order\": True}")).unwrap();
        assert_eq!(labels.described(), "int64 (big-endian) of shape (5,)");
        assert!(read(&file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}")).unwrap().shape.is_empty());
    }

    #[test]
    fn other_headers_are_refused_with_what_they_are() {
        let dict = |descr: &str, order: &str, shape: &str| {
            file(1, &format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"))
        };
        let good = dict("'|u1'", "False", "(2, 2)");
        for (bytes, expected) in [
            (dict("'|u1'", "True", "(2, 2)"), "Fortran's order; save numpy.ascontiguousarray"),
            (dict("'|O'", "False", "(2, 2)"), "holds Python objects"),
            (dict("[('a', '<f4')]", "False", "(2, 2)"), "several fields"),
            (dict("'|u1'", "False", "(2, -2)"), "is the file damaged?"),
            (dict("'|u1'", "False", "(99999999999999999999,)"), "is the file damaged?"),
            (dict("'|u1'", "False", "(2, 2"), "is the file damaged?"),
            (dict("'|u1", "False", "(2, 2)"), "is the file damaged?"),
            (file(1, "{'descr': '|u1', 'shape': (1,)}"), "is the file damaged?"),
            (file(1, "__import__('os').system('true')"), "is the file damaged?"),
            (file(1, "\u{e9}{"), "is the file damaged?"),
            (file(4, "{}"), "has version 4"),
            ([MAGIC, &[2, 0], &u32::MAX.to_le_bytes()[..]].concat(), "at most 65536 are read"),
            (good[..30].to_vec(), "truncated in its header"),
            (good[..4].to_vec(), "truncated in its header"),
            (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00".to_vec(), "is a pickle"),
            (b"\x89HDF\r\n\x1a\n".to_vec(), "is an HDF5 file"),
            (b"a,b,c,d,e\n".to_vec(), "is no array of NumPy's"),
        ] {
            let refusal = read(&bytes).unwrap_err();
            assert!(refusal.contains(expected), "{expected}: {refusal}");
        }
        let many = format!("({})", "1,".repeat(RANK_MAX + 1));
        assert!(read(&dict("'|u1'", "False", &many)).is_err());
        let huge = dict("'|u1'", "False", "(4294967296, 4294967296, 4294967296)");
        assert!(read(&huge).unwrap().n_elements().unwrap_err().contains("more elements than there can be"));
    }
}
