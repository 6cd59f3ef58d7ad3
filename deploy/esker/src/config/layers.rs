//! Puts the layers of a configuration together and reports mistakes by key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use toml::{Table, Value};

use super::RoleConfig;
use super::keys::{Key, known, nearest};

/// Where a role's settings come from; a later layer wins.
#[derive(Default)]
pub struct Layers {
    pub file: Option<PathBuf>,
    /// `(NAME, value)` of the process environment.
    pub environment: Vec<(String, String)>,
    /// `a.b=c`
    pub sets: Vec<String>,
}

impl Layers {
    pub fn new(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        Self { file, environment: std::env::vars().collect(), sets }
    }
}

/// Reads, checks and validates. Every error is one line that names the key.
pub fn load<C: RoleConfig>(layers: &Layers) -> Result<C> {
    let mut table = match &layers.file {
        Some(path) => read_file(path)?,
        None => Table::new(),
    };
    let keys = known::<C>();
    check_names(&table, &keys, "").with_context(|| origin(layers.file.as_deref()))?;
    for (name, value) in &layers.environment {
        let Some(path) = variable_path(name) else { continue };
        // One environment may serve several roles: what belongs to another is not for us.
        if OTHER_TABLES.contains(&path[0].as_str()) && keys.iter().all(|key| key.name != path[0]) {
            continue;
        }
        set(&mut table, &path, value, &keys).with_context(|| format!("environment variable {name}"))?;
    }
    for text in &layers.sets {
        let (key, value) = text.split_once('=').ok_or_else(|| anyhow!("--set {text}: write key=value"))?;
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        set(&mut table, &path, value, &keys).with_context(|| format!("--set {text}"))?;
    }
    let config: C = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let (key, why) = (error.path().to_string(), error.inner().to_string());
        anyhow!("{}: key `{key}`: {}", origin(layers.file.as_deref()), why.trim().replace('\n', " "))
    })?;
    config.validate().map_err(|why| anyhow!("{}: {why}", origin(layers.file.as_deref())))?;
    Ok(config)
}

/// Top-level tables of some role's configuration.
const OTHER_TABLES: [&str; 4] = ["node", "metadata", "bookie", "gateway"];

/// `ESKER_BOOKIE__JOURNAL__GROUP_BYTES` is the key `bookie.journal.group-bytes`; a name without `__` is not a key.
fn variable_path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix("ESKER_")?;
    rest.contains("__").then(|| rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect())
}

fn origin(file: Option<&Path>) -> String {
    file.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string())
}

fn read_file(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        anyhow!("{}: line {line}: {}", path.display(), error.message())
    })
}

fn check_names(table: &Table, keys: &[Key], above: &str) -> Result<()> {
    for (name, value) in table {
        let Some(key) = keys.iter().find(|key| key.name == *name) else {
            return Err(unknown(&format!("{above}{name}"), name, keys));
        };
        if let (Value::Table(inner), Some(below)) = (value, &key.below) {
            check_names(inner, below, &format!("{above}{name}."))?;
        }
    }
    Ok(())
}

fn unknown(path: &str, name: &str, keys: &[Key]) -> anyhow::Error {
    match nearest(name, keys.iter().map(|key| key.name.as_str())) {
        Some(right) => anyhow!("unknown key `{path}`; did you mean `{right}`?"),
        None => anyhow!("unknown key `{path}`; `esker config show` lists them"),
    }
}

fn set(table: &mut Table, path: &[String], value: &str, keys: &[Key]) -> Result<()> {
    let (Some(name), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { bail!("the key is empty") };
    let Some(key) = keys.iter().find(|key| key.name == *name) else { return Err(unknown(name, name, keys)) };
    if rest.is_empty() {
        table.insert(name.clone(), parse_value(value));
        return Ok(());
    }
    let slot = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
    let inner = slot.as_table_mut().ok_or_else(|| anyhow!("`{name}` is not a table"))?;
    match &key.below {
        Some(below) => set(inner, rest, value, below),
        None if key.open => {
            inner.insert(rest.join("."), parse_value(value));
            Ok(())
        }
        None => bail!("`{name}` has no keys below it"),
    }
}

/// `true`, `5`, `"x"` and `[1, 2]` as TOML reads them, anything else as text.
fn parse_value(text: &str) -> Value {
    let parsed = format!("value = {}", text.trim()).parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Journal {
        group_bytes: u64,
    }

    #[derive(Default, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        bookie: Bookie,
    }

    #[derive(Default, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Bookie {
        node_name: String,
        journal: Journal,
    }

    impl RoleConfig for Sample {
        fn validate(&self) -> Result<(), String> {
            if self.bookie.journal.group_bytes == 13 {
                Err("`bookie.journal.group-bytes` may not be 13".into())
            } else {
                Ok(())
            }
        }
    }

    fn layers(sets: &[&str]) -> Layers {
        Layers { sets: sets.iter().map(|s| s.to_string()).collect(), ..Layers::default() }
    }

    #[test]
    fn later_layers_win() {
        let mut layers = layers(&["bookie.journal.group-bytes=3"]);
        layers.environment = vec![
            ("ESKER_BOOKIE__JOURNAL__GROUP_BYTES".into(), "2".into()),
            ("ESKER_BOOKIE__NODE_NAME".into(), "b-1".into()),
            ("ESKER_GATEWAY__X".into(), "1".into()),
        ];
        let config: Sample = load(&layers).expect("valid");
        assert_eq!((config.bookie.node_name.as_str(), config.bookie.journal.group_bytes), ("b-1", 3));
    }

    #[test]
    fn mistakes_name_the_key() {
        let says = |sets: &[&str]| format!("{:#}", load::<Sample>(&layers(sets)).expect_err("wrong"));
        assert!(says(&["bookie.journal.grup-bytes=3"]).contains("did you mean `group-bytes`?"));
        assert!(says(&["bookie.journal.group-bytes=13"]).contains("may not be 13"));
        assert!(says(&["bookie.journal.group-bytes=many"]).contains("key `bookie.journal.group-bytes`"));
        assert!(says(&["nonsense"]).contains("write key=value"));
    }
}
