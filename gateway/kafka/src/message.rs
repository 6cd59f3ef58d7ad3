//! One description per structure, from which both directions come.

/// Declares structures of Kafka's schemas. Each field: name, type, the versions that have it, then, if they apply,
/// `null(versions)` in which an `Option` may be null, `tag(n)` for a tagged field (declared in the order of tags), and
/// `default(value)` where Kafka's is not zero, empty or null.
macro_rules! structs {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident: $type:ty = ($versions:expr) $(null($null:expr))? $(tag($tag:literal))? $(default($default:expr))?,
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: structs!(@default $($default)?),)* }
            }
        }

        impl $crate::field::Field for $name {
            fn min_len(form: $crate::field::Form) -> usize {
                let mut len = usize::from(form.flexible);
                $(structs!(@min_len len form $type, ($versions) [$($tag)?]);)*
                len
            }

            #[allow(clippy::redundant_closure_call, reason = "not every structure has fields of every kind")]
            fn decode(
                from: &mut $crate::reader::Reader,
                form: $crate::field::Form,
            ) -> Result<Self, $crate::error::DecodeError> {
                #[allow(unused_mut, reason = "a structure may have no fields")]
                let mut out = Self::default();
                $(structs!(@decode out from form $field $type, ($versions) [$($null)?] [$($tag)?]);)*
                if form.flexible {
                    for _ in 0..from.tag_count()? {
                        #[allow(unused_variables, reason = "a structure may have no tagged fields")]
                        let (tag, rest) = from.enter_tag()?;
                        #[allow(unused_mut, reason = "a structure may have no tagged fields")]
                        let mut known = false;
                        $(structs!(@decode_tag out from form tag known $field $type, ($versions) [$($tag)?]);)*
                        from.leave_tag(rest, known)?;
                    }
                }
                Ok(out)
            }

            fn encode(&self, into: &mut $crate::writer::Writer, form: $crate::field::Form) {
                $(structs!(@encode self into form $field $type, ($versions) [$($tag)?]);)*
                if form.flexible {
                    #[allow(unused_mut, reason = "a structure may have no tagged fields")]
                    let mut tags: Vec<(u32, $crate::writer::Writer)> = Vec::new();
                    $(structs!(@encode_tag self tags form $field $type, ($versions) [$($tag)?] [$($default)?]);)*
                    into.uvarint(tags.len() as u32);
                    tags.into_iter().for_each(|(tag, body)| into.tag(tag, body));
                }
            }
        }

        impl $crate::field::Nullable for $name {
            fn min_len(_: $crate::field::Form) -> usize {
                1
            }
            fn decode(
                from: &mut $crate::reader::Reader,
                form: $crate::field::Form,
            ) -> Result<Option<Self>, $crate::error::DecodeError> {
                match from.i8()? {
                    present if present < 0 => Ok(None),
                    _ => <Self as $crate::field::Field>::decode(from, form).map(Some),
                }
            }
            fn encode(value: Option<&Self>, into: &mut $crate::writer::Writer, form: $crate::field::Form) {
                into.i8(if value.is_some() { 1 } else { -1 });
                value.into_iter().for_each(|value| $crate::field::Field::encode(value, into, form));
            }
        }

        #[cfg(test)]
        impl $crate::tests::Weigh for $name {
            fn weigh(&self) -> usize {
                let parts: &[&dyn $crate::tests::Weigh] = &[$(&self.$field,)*];
                parts.iter().map(|part| part.weigh()).sum()
            }
        }

        #[cfg(test)]
        impl $crate::tests::Sample for $name {
            fn sample(random: &mut $crate::tests::Random, form: $crate::field::Form) -> Self {
                #[allow(unused_mut, reason = "a structure may have no fields")]
                let mut out = Self::default();
                $(
                    if structs!(@has ($versions) form) {
                        out.$field = <$type as $crate::tests::Sample>::sample(random, form);
                        structs!(@sample_null out random form $field $type, [$($null)?]);
                    }
                )*
                out
            }
        }
    )*};

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@has ($versions:expr) $form:ident) => { std::ops::RangeBounds::<i16>::contains(&($versions), &$form.version) };

    (@min_len $len:ident $form:ident $type:ty, ($versions:expr) []) => {
        if structs!(@has ($versions) $form) {
            $len += <$type as $crate::field::Field>::min_len($form);
        }
    };
    (@min_len $len:ident $form:ident $type:ty, ($versions:expr) [$tag:literal]) => {};

    (@decode $out:ident $from:ident $form:ident $field:ident $type:ty, ($versions:expr) [] []) => {
        if structs!(@has ($versions) $form) {
            $out.$field = <$type as $crate::field::Field>::decode($from, $form)?;
        }
    };
    (@decode $out:ident $from:ident $form:ident $field:ident $type:ty, ($versions:expr) [$null:expr] []) => {
        if structs!(@has ($versions) $form) {
            $out.$field = <$type as $crate::field::Field>::decode($from, $form)?;
            if $out.$field.is_none() && !structs!(@has ($null) $form) {
                return Err($crate::error::DecodeError::Null(stringify!($field)));
            }
        }
    };
    (@decode $out:ident $from:ident $form:ident $field:ident $type:ty, ($versions:expr) [$($null:expr)?] [$tag:literal]) => {};

    (@decode_tag $out:ident $from:ident $form:ident $at:ident $known:ident $field:ident $type:ty, ($versions:expr) []) => {};
    (@decode_tag $out:ident $from:ident $form:ident $at:ident $known:ident $field:ident $type:ty, ($versions:expr) [$tag:literal]) => {
        if $at == $tag && structs!(@has ($versions) $form) {
            $out.$field = <$type as $crate::field::Field>::decode($from, $form)?;
            $known = true;
        }
    };

    (@encode $self:ident $into:ident $form:ident $field:ident $type:ty, ($versions:expr) []) => {
        if structs!(@has ($versions) $form) {
            <$type as $crate::field::Field>::encode(&$self.$field, $into, $form);
        }
    };
    (@encode $self:ident $into:ident $form:ident $field:ident $type:ty, ($versions:expr) [$tag:literal]) => {};

    (@encode_tag $self:ident $tags:ident $form:ident $field:ident $type:ty, ($versions:expr) [] [$($default:expr)?]) => {};
    (@encode_tag $self:ident $tags:ident $form:ident $field:ident $type:ty, ($versions:expr) [$tag:literal] [$($default:expr)?]) => {
        let default: $type = structs!(@default $($default)?);
        if structs!(@has ($versions) $form) && $self.$field != default {
            let mut body = $crate::writer::Writer::new();
            <$type as $crate::field::Field>::encode(&$self.$field, &mut body, $form);
            $tags.push(($tag, body));
        }
    };

    (@sample_null $out:ident $random:ident $form:ident $field:ident $type:ty, []) => {};
    (@sample_null $out:ident $random:ident $form:ident $field:ident $type:ty, [$null:expr]) => {
        while $out.$field.is_none() && !structs!(@has ($null) $form) {
            $out.$field = <$type as $crate::tests::Sample>::sample($random, $form);
        }
    };
}

pub(crate) use structs;
