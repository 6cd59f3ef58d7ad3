//! How records and commands become protobuf, and how they are hashed.
//!
//! A type is written once, as a plain Rust struct of newtypes; [`messages!`](crate::messages) and [`union!`](crate::union)
//! give it a protobuf twin that only this module's functions see. Decoding checks as it converts, so a value in hand
//! is a valid one. Tags are on disk and on the wire: never reuse or renumber one.

use std::sync::Arc;

use esker_types::{
    BookieId, BootId, ClusterId, Epoch, GatewayId, InstanceId, Member, PartitionId, ProducerId, Quorum, SegmentId,
    SessionId, TopicId, WallMs,
};
use prost::Message;

/// Bytes that are not what they should be. Never a panic: they come from a network or a disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("metadata message does not parse: {0}")]
    Malformed(String),
    #[error("metadata message holds an impossible value: {0}")]
    Invalid(&'static str),
    #[error("metadata was written by a newer program ({0}): upgrade this node")]
    Newer(&'static str),
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A value with a protobuf form.
///
/// `from_wire(to_wire(x)) == x`. `digest` writes a canonical form: it depends on the value alone, never on the
/// protobuf encoding, and leaves out fields that hold their default, so that a field added later changes no hash.
pub trait Wire: Sized {
    type Proto: Default;
    fn to_wire(&self) -> Self::Proto;
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError>;
    fn digest(&self, into: &mut Canon);
    /// True for the value that protobuf leaves out.
    fn is_default(&self) -> bool {
        false
    }
}

/// Encodes one message.
pub fn encode<T: Wire>(value: &T) -> Vec<u8>
where
    T::Proto: Message,
{
    value.to_wire().encode_to_vec()
}

/// Decodes exactly one message.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError>
where
    T::Proto: Message,
{
    T::from_wire(T::Proto::decode(bytes)?)
}

/// Collects the canonical form of a value.
#[derive(Default)]
pub struct Canon(Vec<u8>);

impl Canon {
    pub fn word(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.word(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// One field of a struct: skipped when default, so that new fields do not disturb old hashes.
    pub fn field<T: Wire>(&mut self, tag: u32, value: &T) {
        if !value.is_default() {
            self.0.extend_from_slice(&tag.to_le_bytes());
            value.digest(self);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub fn finish(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.0)
    }
}

/// Defines structs with their protobuf form. Each field: tag, name, type, and prost's words for the protobuf type.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* $tag:literal $field:ident : $ty:ty = [$($kind:tt)*] ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }

        const _: () = {
            #[derive(Clone, PartialEq, ::prost::Message)]
            pub struct Proto {
                $( #[prost($($kind)*, tag($tag))] pub $field: <$ty as $crate::wire::Wire>::Proto, )*
            }

            impl $crate::wire::Wire for $name {
                type Proto = Proto;

                fn to_wire(&self) -> Proto {
                    Proto { $( $field: $crate::wire::Wire::to_wire(&self.$field), )* }
                }

                fn from_wire(_proto: Proto) -> Result<Self, $crate::wire::DecodeError> {
                    Ok(Self { $( $field: $crate::wire::Wire::from_wire(_proto.$field)?, )* })
                }

                fn digest(&self, _into: &mut $crate::wire::Canon) {
                    $( _into.field($tag, &self.$field); )*
                    _into.word(0);
                }
            }
        };
    )* };
}

/// Defines an enum of messages as a protobuf oneof.
#[macro_export]
macro_rules! union {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $tag:literal $variant:ident($ty:ty) ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$vmeta])* $variant($ty), )* }

        $( impl From<$ty> for $name {
            fn from(value: $ty) -> Self {
                Self::$variant(value)
            }
        } )*

        const _: () = {
            // Lives from decoding to the conversion into the type itself.
            #[allow(clippy::large_enum_variant)]
            #[derive(Clone, PartialEq, ::prost::Oneof)]
            pub enum Kind { $( #[prost(message, tag($tag))] $variant(<$ty as $crate::wire::Wire>::Proto), )* }

            #[derive(Clone, PartialEq, ::prost::Message)]
            pub struct Proto {
                #[prost(oneof = "Kind", tags($($tag),*))]
                pub kind: Option<Kind>,
            }

            impl $crate::wire::Wire for $name {
                type Proto = Proto;

                fn to_wire(&self) -> Proto {
                    Proto { kind: Some(match self {
                        $( Self::$variant(value) => Kind::$variant($crate::wire::Wire::to_wire(value)), )*
                    }) }
                }

                fn from_wire(proto: Proto) -> Result<Self, $crate::wire::DecodeError> {
                    match proto.kind {
                        $( Some(Kind::$variant(value)) =>
                            Ok(Self::$variant($crate::wire::Wire::from_wire(value)?)), )*
                        None => Err($crate::wire::DecodeError::Newer(concat!("unknown ", stringify!($name)))),
                    }
                }

                fn digest(&self, into: &mut $crate::wire::Canon) {
                    match self { $( Self::$variant(value) => {
                        into.word($tag);
                        value.digest(into);
                    } )* }
                }
            }
        };
    };
}

/// Defines a field-less enum that travels as a number.
#[macro_export]
macro_rules! codes {
    ($( $(#[$meta:meta])* pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $code:literal ),* $(,)? } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$vmeta])* $variant = $code, )* }

        impl $crate::wire::Wire for $name {
            type Proto = u32;
            fn to_wire(&self) -> u32 {
                *self as u32
            }
            fn from_wire(proto: u32) -> Result<Self, $crate::wire::DecodeError> {
                match proto {
                    $( $code => Ok(Self::$variant), )*
                    _ => Err($crate::wire::DecodeError::Newer(concat!("unknown ", stringify!($name)))),
                }
            }
            fn digest(&self, into: &mut $crate::wire::Canon) {
                into.word(*self as u64);
            }
            fn is_default(&self) -> bool {
                *self == Self::default()
            }
        }
    )* };
}

macro_rules! scalar {
    ($($ty:ty),*) => { $(
        impl Wire for $ty {
            type Proto = $ty;
            fn to_wire(&self) -> $ty { *self }
            fn from_wire(proto: $ty) -> Result<Self, DecodeError> { Ok(proto) }
            fn digest(&self, into: &mut Canon) { into.word(*self as u64); }
            fn is_default(&self) -> bool { *self == <$ty>::default() }
        }
    )* };
}
scalar!(u32, u64, i64, bool);

macro_rules! number {
    ($($ty:ident: $inner:ty),*) => { $(
        impl Wire for $ty {
            type Proto = $inner;
            fn to_wire(&self) -> $inner { self.0 }
            fn from_wire(proto: $inner) -> Result<Self, DecodeError> { Ok(Self(proto)) }
            fn digest(&self, into: &mut Canon) { into.word(self.0 as u64); }
            fn is_default(&self) -> bool { self.0 == 0 }
        }
    )* };
}
number!(PartitionId: u64, GatewayId: u64, BookieId: u64, SessionId: u64, ProducerId: u64, Epoch: u32, WallMs: i64);

macro_rules! uuid {
    ($($ty:ident),*) => { $(
        impl Wire for $ty {
            type Proto = Vec<u8>;
            fn to_wire(&self) -> Vec<u8> { self.0.to_vec() }
            fn from_wire(proto: Vec<u8>) -> Result<Self, DecodeError> {
                Self::from_slice(&proto).ok_or(DecodeError::Invalid(concat!(stringify!($ty), " is not 16 bytes")))
            }
            fn digest(&self, into: &mut Canon) { into.bytes(&self.0); }
        }
    )* };
}
uuid!(TopicId, ClusterId, InstanceId, BootId);

impl Wire for u8 {
    type Proto = u32;
    fn to_wire(&self) -> u32 {
        u32::from(*self)
    }
    fn from_wire(proto: u32) -> Result<Self, DecodeError> {
        u8::try_from(proto).map_err(|_| DecodeError::Invalid("number over 255"))
    }
    fn digest(&self, into: &mut Canon) {
        into.word(u64::from(*self));
    }
    fn is_default(&self) -> bool {
        *self == 0
    }
}

impl Wire for String {
    type Proto = String;
    fn to_wire(&self) -> String {
        self.clone()
    }
    fn from_wire(proto: String) -> Result<Self, DecodeError> {
        Ok(proto)
    }
    fn digest(&self, into: &mut Canon) {
        into.bytes(self.as_bytes());
    }
    fn is_default(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Wire> Wire for Option<T> {
    type Proto = Option<T::Proto>;
    fn to_wire(&self) -> Self::Proto {
        self.as_ref().map(T::to_wire)
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        proto.map(T::from_wire).transpose()
    }
    fn digest(&self, into: &mut Canon) {
        match self {
            None => into.word(0),
            Some(value) => {
                into.word(1);
                value.digest(into);
            }
        }
    }
    fn is_default(&self) -> bool {
        self.is_none()
    }
}

impl<T: Wire> Wire for Vec<T> {
    type Proto = Vec<T::Proto>;
    fn to_wire(&self) -> Self::Proto {
        self.iter().map(T::to_wire).collect()
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        proto.into_iter().map(T::from_wire).collect()
    }
    fn digest(&self, into: &mut Canon) {
        into.word(self.len() as u64);
        for value in self {
            value.digest(into);
        }
    }
    fn is_default(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Wire> Wire for Arc<T> {
    type Proto = T::Proto;
    fn to_wire(&self) -> Self::Proto {
        T::to_wire(self)
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        T::from_wire(proto).map(Arc::new)
    }
    fn digest(&self, into: &mut Canon) {
        T::digest(self, into);
    }
    fn is_default(&self) -> bool {
        T::is_default(self)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PairProto {
    #[prost(uint64, tag = "1")]
    pub first: u64,
    #[prost(uint64, tag = "2")]
    pub second: u64,
}

impl Wire for SegmentId {
    type Proto = PairProto;
    fn to_wire(&self) -> PairProto {
        PairProto { first: self.partition.0, second: self.n }
    }
    fn from_wire(proto: PairProto) -> Result<Self, DecodeError> {
        Ok(Self::new(proto.first, proto.second))
    }
    fn digest(&self, into: &mut Canon) {
        into.word(self.partition.0);
        into.word(self.n);
    }
}

impl Wire for Quorum {
    type Proto = PairProto;
    fn to_wire(&self) -> PairProto {
        PairProto { first: self.write.into(), second: self.ack.into() }
    }
    fn from_wire(proto: PairProto) -> Result<Self, DecodeError> {
        let invalid = || DecodeError::Invalid("quorum is not 1 <= ack <= write <= 7");
        let write = u8::try_from(proto.first).map_err(|_| invalid())?;
        let ack = u8::try_from(proto.second).map_err(|_| invalid())?;
        let quorum = Self { write, ack };
        if quorum.is_valid() { Ok(quorum) } else { Err(invalid()) }
    }
    fn digest(&self, into: &mut Canon) {
        into.word(self.write.into());
        into.word(self.ack.into());
    }
}

impl Wire for Member {
    type Proto = esker_types::segment::MemberRecord;
    fn to_wire(&self) -> Self::Proto {
        (*self).into()
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        proto.to_member().ok_or(DecodeError::Invalid("member's instance is not 16 bytes"))
    }
    fn digest(&self, into: &mut Canon) {
        into.word(self.bookie.0);
        into.bytes(&self.instance.0);
    }
}
