//! How each type of Kafka's schemas lies on the wire.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::reader::Reader;
use crate::writer::Writer;

/// What the form of a field depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub version: i16,
    /// Compact lengths and tagged fields.
    pub flexible: bool,
}

/// A value in a message.
pub trait Field: Sized {
    /// Fewest bytes that a value takes.
    fn min_len(form: Form) -> usize;
    fn decode(from: &mut Reader, form: Form) -> Result<Self, DecodeError>;
    fn encode(&self, into: &mut Writer, form: Form);
}

/// A type with a form for null. Which fields may be null is up to each field's schema.
pub trait Nullable: Sized {
    fn min_len(form: Form) -> usize;
    fn decode(from: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError>;
    fn encode(value: Option<&Self>, into: &mut Writer, form: Form);
}

/// An id of 16 bytes; all zero = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }
}

/// Record batches that lie one behind the other, perhaps in several buffers. Never null when encoded: clients take
/// null for a broken broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(pub Vec<Bytes>);

impl Records {
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }
}

macro_rules! number {
    ($($type:ident $len:literal)*) => {$(
        impl Field for $type {
            fn min_len(_: Form) -> usize {
                $len
            }
            fn decode(from: &mut Reader, _: Form) -> Result<Self, DecodeError> {
                from.$type()
            }
            fn encode(&self, into: &mut Writer, _: Form) {
                into.$type(*self);
            }
        }
    )*};
}

number! { i8 1 i16 2 i32 4 i64 8 }

impl Field for bool {
    fn min_len(_: Form) -> usize {
        1
    }
    fn decode(from: &mut Reader, _: Form) -> Result<Self, DecodeError> {
        match from.i8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Bool(other)),
        }
    }
    fn encode(&self, into: &mut Writer, _: Form) {
        into.i8((*self).into());
    }
}

impl Field for Uuid {
    fn min_len(_: Form) -> usize {
        16
    }
    fn decode(from: &mut Reader, _: Form) -> Result<Self, DecodeError> {
        from.uuid().map(Uuid)
    }
    fn encode(&self, into: &mut Writer, _: Form) {
        into.uuid(&self.0);
    }
}

impl Nullable for String {
    fn min_len(form: Form) -> usize {
        if form.flexible { 1 } else { 2 }
    }
    fn decode(from: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        from.string(form.flexible)
    }
    fn encode(value: Option<&Self>, into: &mut Writer, form: Form) {
        into.string(value.map(String::as_str), form.flexible);
    }
}

impl Nullable for Bytes {
    fn min_len(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }
    fn decode(from: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        from.bytes(form.flexible)
    }
    fn encode(value: Option<&Self>, into: &mut Writer, form: Form) {
        into.bytes(value.map(|bytes| &bytes[..]), form.flexible);
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn min_len(form: Form) -> usize {
        if form.flexible { 1 } else { 4 }
    }
    fn decode(from: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        let Some(count) = from.array(form.flexible, T::min_len(form), size_of::<T>())? else { return Ok(None) };
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(T::decode(from, form)?);
        }
        Ok(Some(out))
    }
    fn encode(value: Option<&Self>, into: &mut Writer, form: Form) {
        into.count(value.map(Vec::len), form.flexible);
        value.into_iter().flatten().for_each(|item| item.encode(into, form));
    }
}

/// Where a type is used as it is, null is refused.
macro_rules! never_null {
    ($($type:ty $(where $t:ident)?, $name:literal;)*) => {$(
        impl$(<$t: Field>)? Field for $type {
            fn min_len(form: Form) -> usize {
                <Self as Nullable>::min_len(form)
            }
            fn decode(from: &mut Reader, form: Form) -> Result<Self, DecodeError> {
                <Self as Nullable>::decode(from, form)?.ok_or(DecodeError::Null($name))
            }
            fn encode(&self, into: &mut Writer, form: Form) {
                <Self as Nullable>::encode(Some(self), into, form);
            }
        }
    )*};
}

never_null! {
    String, "a string";
    Bytes, "a byte string";
    Vec<T> where T, "an array";
}

impl<T: Nullable> Field for Option<T> {
    fn min_len(form: Form) -> usize {
        T::min_len(form)
    }
    fn decode(from: &mut Reader, form: Form) -> Result<Self, DecodeError> {
        T::decode(from, form)
    }
    fn encode(&self, into: &mut Writer, form: Form) {
        T::encode(self.as_ref(), into, form);
    }
}

impl Field for Records {
    fn min_len(form: Form) -> usize {
        <Bytes as Nullable>::min_len(form)
    }
    fn decode(from: &mut Reader, form: Form) -> Result<Self, DecodeError> {
        let bytes = from.bytes(form.flexible)?;
        from.charge(size_of_val(&bytes))?;
        Ok(Self(bytes.into_iter().collect()))
    }
    fn encode(&self, into: &mut Writer, form: Form) {
        into.shared(&self.0, form.flexible);
    }
}
