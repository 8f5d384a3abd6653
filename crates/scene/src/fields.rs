//! The names of a struct's fields, as its `Deserialize` tells them.

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// The names of the fields that a `T` is read from, in order; none for a type that is no struct.
pub fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It ends in an error in any case: there is nothing to read.
    drop(T::deserialize(Asking(&mut fields)));
    fields
}

/// Notes the fields it is asked for.
struct Asking<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asking<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Error::custom("only the names are wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Error::custom("no struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::fields_of;

    #[derive(Deserialize)]
    struct Two {
        #[serde(rename = "first")]
        _a: u8,
        #[serde(default, rename = "second")]
        _b: Option<String>,
    }

    #[derive(Deserialize)]
    struct NoFields {}

    #[test]
    fn names_are_those_that_serde_reads() {
        assert_eq!(fields_of::<Two>(), ["first", "second"]);
        assert!(fields_of::<NoFields>().is_empty());
        assert!(fields_of::<u32>().is_empty());
    }
}
