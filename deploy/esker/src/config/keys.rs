//! The keys that a configuration struct knows, read from its JSON schema.

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// One key with its documentation; a table has keys below it.
pub struct Key {
    pub name: String,
    pub doc: String,
    pub below: Option<Vec<Key>>,
    /// Any name is allowed below this key.
    pub open: bool,
}

pub fn known<T: JsonSchema>() -> Vec<Key> {
    let schema = schema_for!(T).to_value();
    properties(&schema, &schema)
}

fn properties(schema: &Value, root: &Value) -> Vec<Key> {
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let key = |(name, field): (&String, &Value)| {
        let target = resolve(field, root);
        let doc = field.get("description").or_else(|| target.get("description"));
        let is_table = target.get("properties").is_some();
        Key {
            name: name.clone(),
            doc: doc.and_then(Value::as_str).unwrap_or_default().to_owned(),
            below: is_table.then(|| properties(target, root)),
            open: target.get("additionalProperties").is_some_and(|v| !v.is_boolean() || v == true),
        }
    };
    fields.iter().map(key).collect()
}

/// Follows a reference, alone or as the only real choice of an optional field.
fn resolve<'a>(field: &'a Value, root: &'a Value) -> &'a Value {
    let choices = ["anyOf", "allOf", "oneOf"].iter().find_map(|word| field.get(*word)?.as_array());
    let holder = choices.and_then(|list| list.iter().find(|c| c.get("$ref").is_some())).unwrap_or(field);
    let Some(reference) = holder.get("$ref").and_then(Value::as_str) else { return field };
    reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).unwrap_or(field)
}

/// The known name closest to a mistyped one, if one is close at all.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = names.map(|name| (edit_distance(word, name), name)).min()?;
    (distance <= word.len().max(name.len()) / 2).then_some(name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_that_was_meant() {
        let names = ["group-bytes", "listen", "advertise"];
        assert_eq!(nearest("grop-bytes", names.into_iter()), Some("group-bytes"));
        assert_eq!(nearest("listne", names.into_iter()), Some("listen"));
        assert_eq!(nearest("zzzzzz", names.into_iter()), None);
    }
}
