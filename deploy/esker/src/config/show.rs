//! `esker config show`: every key with its default and the reason for it, as a file that could be used at once.

use std::fmt::Write;

use anyhow::Result;
use toml::{Table, Value};

use super::RoleConfig;
use super::keys::{Key, known};

pub fn show<C: RoleConfig>() -> Result<String> {
    let defaults = Table::try_from(C::default())?;
    let mut out = String::new();
    table(&mut out, &known::<C>(), &defaults, "");
    Ok(out)
}

/// Plain keys before tables: TOML gives everything behind a `[table]` line to that table.
fn table(out: &mut String, keys: &[Key], defaults: &Table, path: &str) {
    for key in keys.iter().filter(|key| key.below.is_none()) {
        comment(out, &key.doc);
        let _ = match defaults.get(&key.name) {
            Some(value) => writeln!(out, "{} = {value}", key.name),
            None => writeln!(out, "# {} =", key.name),
        };
        out.push('\n');
    }
    for key in keys {
        let Some(below) = &key.below else { continue };
        let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
        comment(out, &key.doc);
        let empty = Table::new();
        let _ = match defaults.get(&key.name).and_then(Value::as_table) {
            Some(_) => writeln!(out, "[{path}]"),
            None => writeln!(out, "# [{path}]"),
        };
        table(out, below, defaults.get(&key.name).and_then(Value::as_table).unwrap_or(&empty), &path);
    }
}

fn comment(out: &mut String, doc: &str) {
    for line in doc.lines() {
        let _ = writeln!(out, "# {line}");
    }
}
