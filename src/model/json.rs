//! Values of a user as JSON, and back, with errors that say what is wrong.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::ser;
use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, one_line};

/// A typed value as JSON; `what` is it, such as "the value".
pub(crate) fn to_json(kind: ErrorKind, what: &str, value: &(impl Serialize + ?Sized)) -> Result<String, Error> {
    let refused = |error: &dyn fmt::Display| {
        let why = one_line(&error.to_string());
        format!("{what} does not convert to JSON: {why}; give it as text or bytes, or as a type that JSON has")
    };
    let json = serde_json::to_string(value).map_err(|error| Error::caused_by(kind, refused(&error), error))?;
    // What JSON has no number for would be written as null, and not be read back as what it was.
    if json.contains("null") {
        value.serialize(Finite).map_err(|error| Error::caused_by(kind, refused(&error), error))?;
    }
    Ok(json)
}

/// JSON as a `T`; `what` is it, such as "the value at a".
pub(crate) fn from_json<T: DeserializeOwned>(kind: ErrorKind, what: &str, json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| {
        let said = one_line(&error.to_string());
        // What is before it may be a part of the data.
        let wanted = said.rfind("expected ").map_or(&*said, |at| &said[at..]);
        let message = format!("{what} is not of the type asked for: {wanted}; read it as the type that was written");
        Error::caused_by(kind, message, error)
    })
}

/// Takes every number but those that JSON has none for, and keeps nothing.
struct Finite;

#[derive(Debug)]
struct NotFinite(String);

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFinite {}

impl ser::Error for NotFinite {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

macro_rules! takes {
    ($($method:ident($kind:ty))*) => {
        $(fn $method(self, _: $kind) -> Result<(), NotFinite> {
            Ok(())
        })*
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = NotFinite;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    takes! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128) serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_u128(u128) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    fn serialize_f32(self, value: f32) -> Result<(), NotFinite> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), NotFinite> {
        if value.is_finite() { Ok(()) } else { Err(NotFinite(format!("{value} is no number in JSON"))) }
    }

    fn serialize_none(self) -> Result<(), NotFinite> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotFinite> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotFinite> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), NotFinite> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), NotFinite> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotFinite> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }
}

macro_rules! takes_parts {
    ($($part:ident $method:ident($($name:ty)?))*) => {
        $(impl ser::$part for Finite {
            type Ok = ();
            type Error = NotFinite;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), NotFinite> {
                value.serialize(Self)
            }

            fn end(self) -> Result<(), NotFinite> {
                Ok(())
            }
        })*
    };
}

takes_parts! {
    SerializeSeq serialize_element()
    SerializeTuple serialize_element()
    SerializeTupleStruct serialize_field()
    SerializeTupleVariant serialize_field()
    SerializeStruct serialize_field(&'static str)
    SerializeStructVariant serialize_field(&'static str)
}

impl ser::SerializeMap for Finite {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotFinite> {
        key.serialize(Self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotFinite> {
        value.serialize(Self)
    }

    fn end(self) -> Result<(), NotFinite> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Unit,
        New(f64),
        Tuple(u8, f64),
        Struct { x: Option<f64> },
    }

    #[derive(Serialize)]
    struct Pair(f64, Option<u8>);

    fn written(value: &impl Serialize) -> Result<String, String> {
        to_json(ErrorKind::InvalidValue, "the value", value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_json_has_no_number_for_is_refused_however_deep() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for refused in [
            written(&nan),
            written(&f32::NEG_INFINITY),
            written(&Some(inf)),
            written(&vec![1.0, nan]),
            written(&[Pair(inf, None)]),
            written(&BTreeMap::from([("a", (1, nan))])),
            written(&[Shape::New(nan)]),
            written(&Shape::Tuple(1, nan)),
            written(&Shape::Struct { x: Some(nan) }),
        ] {
            let said = refused.unwrap_err();
            assert!(said.contains("is no number in JSON") && said.contains("; "), "{said}");
        }
    }

    #[test]
    fn null_is_written_where_it_is_meant() {
        assert_eq!(written(&()).unwrap(), "null");
        assert_eq!(written(&[None, Some(1.5)]).unwrap(), "[null,1.5]");
        assert_eq!(written(&"null").unwrap(), "\"null\"");
        assert_eq!(written(&Shape::Struct { x: None }).unwrap(), "{\"Struct\":{\"x\":null}}");
        assert_eq!(written(&(Shape::Unit, Pair(1.0, None))).unwrap(), "[\"Unit\",[1.0,null]]");
        let raw = serde_json::value::RawValue::from_string("[null]".to_owned()).unwrap();
        assert_eq!(written(&raw).unwrap(), "[null]");
        assert_eq!(written(&serde_json::json!({"a": [null, 1]})).unwrap(), "{\"a\":[null,1]}");
    }

    #[test]
    fn a_value_of_another_type_is_said_in_words_and_without_the_value() {
        let read =
            |json: &str| from_json::<Vec<String>>(ErrorKind::InvalidValue, "the value at \"a\"", json.as_bytes());
        let said = read("\"secret\"").unwrap_err().to_string();
        assert!(
            said.contains("expected a sequence") && !said.contains("secret") && !said.contains("alloc::"),
            "{said}"
        );
        assert!(read("[\"a\"").unwrap_err().to_string().contains("EOF"));
    }
}
