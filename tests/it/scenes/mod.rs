//! Scene texts: what is read, what is refused in which words, what `--set` changes.

mod bounds;
mod hostile;
mod mistakes;
mod set;
mod values;
