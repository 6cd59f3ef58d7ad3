//! Where a store is, from its URL. Credentials never come this way: URLs end up in logs, metrics and metadata.

use std::path::PathBuf;

use url::Url;

use super::error::{Error, Kind};

/// A parsed store URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine, `file:///dir`.
    File { dir: PathBuf },
    /// S3 or something that speaks its protocol, `s3://bucket/prefix?endpoint=…&region=…&path_style=true`.
    S3(S3),
    /// Google Cloud Storage, `gs://bucket/prefix`.
    Google { bucket: String, prefix: String, endpoint: Option<String> },
    /// Azure Blob Storage, `az://container/prefix?account=…`.
    Azure { container: String, prefix: String, account: Option<String>, endpoint: Option<String> },
    /// The memory of this process, `memory:`. For tests: it is gone when the process ends.
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    pub bucket: String,
    /// Without a slash at either end; may be empty.
    pub prefix: String,
    /// `http://host:port` of a compatible store; Amazon's own if none.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// The bucket stands in the path instead of the host name. Compatible stores often need it.
    pub path_style: bool,
}

const FORMS: &str = "use file:///dir, s3://bucket/prefix?endpoint=URL&region=R&path_style=true, gs://bucket/prefix, \
                     az://container/prefix?account=A, or memory:";

impl Location {
    /// # Errors
    /// `Invalid` with one line that says what is wrong and what is accepted. A part of the URL that could be a secret
    /// is never repeated.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "memory:" || text == "memory://" {
            return Ok(Self::Memory);
        }
        let invalid = |detail: String| Error::new(Kind::Invalid, "open", "the store", detail);
        let url = Url::parse(text).map_err(|e| invalid(format!("not a URL ({e}): {FORMS}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("the URL holds credentials: take them out and set them in the environment".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(invalid(format!("the URL has a # part: {FORMS}")));
        }
        let query = Query::new(&url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let prefix = prefix(&url)?;
        match url.scheme() {
            "file" => {
                query.only(&[])?;
                let dir = url.to_file_path().map_err(|()| invalid(format!("not a folder of this machine: {FORMS}")))?;
                Ok(Self::File { dir })
            }
            scheme @ ("s3" | "gs" | "az") if host.is_empty() => {
                Err(invalid(format!("{scheme}: URL without a bucket: {FORMS}")))
            }
            "s3" => {
                query.only(&["endpoint", "region", "path_style"])?;
                let path_style = match query.value("path_style").as_deref() {
                    None | Some("false") => false,
                    Some("true" | "") => true,
                    Some(_) => return Err(invalid("path_style must be true or false".to_owned())),
                };
                let endpoint = query.endpoint()?;
                Ok(Self::S3(S3 { bucket: host, prefix, endpoint, region: query.value("region"), path_style }))
            }
            "gs" => {
                query.only(&["endpoint"])?;
                Ok(Self::Google { bucket: host, prefix, endpoint: query.endpoint()? })
            }
            "az" => {
                query.only(&["account", "endpoint"])?;
                let (account, endpoint) = (query.value("account"), query.endpoint()?);
                Ok(Self::Azure { container: host, prefix, account, endpoint })
            }
            scheme => Err(invalid(format!("unknown scheme {scheme}: {FORMS}"))),
        }
    }

    /// What all keys begin with, without a slash at the end.
    pub fn prefix(&self) -> &str {
        match self {
            Self::S3(S3 { prefix, .. }) | Self::Google { prefix, .. } | Self::Azure { prefix, .. } => prefix,
            Self::File { .. } | Self::Memory => "",
        }
    }

    /// The store, and the key that stands in place of a prefix's last part: how one object of a store is named. None for
    /// a store without a prefix, and for folders, where every file has a path.
    pub fn split_key(mut self) -> Option<(Self, String)> {
        let prefix = match &mut self {
            Self::S3(S3 { prefix, .. }) | Self::Google { prefix, .. } | Self::Azure { prefix, .. } => prefix,
            Self::File { .. } | Self::Memory => return None,
        };
        let (parent, key) = match prefix.rsplit_once('/') {
            Some((parent, key)) => (parent.to_owned(), key.to_owned()),
            None => (String::new(), prefix.clone()),
        };
        *prefix = parent;
        (!key.is_empty()).then_some((self, key))
    }

    /// For messages: where it is, without the query.
    pub fn describe(&self) -> String {
        let join = |scheme: &str, bucket: &str, prefix: &str| {
            if prefix.is_empty() { format!("{scheme}://{bucket}") } else { format!("{scheme}://{bucket}/{prefix}") }
        };
        match self {
            Self::File { dir } => format!("file://{}", dir.display()),
            Self::S3(s3) => join("s3", &s3.bucket, &s3.prefix),
            Self::Google { bucket, prefix, .. } => join("gs", bucket, prefix),
            Self::Azure { container, prefix, .. } => join("az", container, prefix),
            Self::Memory => "memory:".to_owned(),
        }
    }
}

fn prefix(url: &Url) -> Result<String, Error> {
    let path = url.path().trim_matches('/');
    if url.scheme() != "file" && !path.is_empty() {
        check_key(path)?;
    }
    Ok(path.to_owned())
}

/// Longest key, prefix included: S3 allows 1,024 bytes.
const KEY_MAX: usize = 900;

/// Keys are ASCII without anything that a store, a file system or a URL would treat in its own way.
///
/// # Errors
/// `Invalid`, naming the key.
pub fn check_key(key: &str) -> Result<(), Error> {
    let segment = |s: &str| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'='))
    };
    if key.len() <= KEY_MAX && key.split('/').all(segment) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).collect();
    Err(Error::new(Kind::Invalid, "use the key", shown, "only A-Z a-z 0-9 - _ . = and / between parts, 900 bytes"))
}

/// The part behind the question mark.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(url: &Url) -> Result<Self, Error> {
        let pairs: Vec<(String, String)> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let secret = ["key", "secret", "token", "password", "sas", "credential", "sig"];
        for (name, _) in &pairs {
            let lower = name.to_ascii_lowercase();
            if secret.iter().any(|word| lower.contains(word)) {
                let detail = "the URL holds credentials: take them out and set them in the environment";
                return Err(Error::new(Kind::Invalid, "open", "the store", detail));
            }
        }
        Ok(Self(pairs))
    }

    fn only(&self, allowed: &[&str]) -> Result<(), Error> {
        match self.0.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let accepted = if allowed.is_empty() { "none is".to_owned() } else { allowed.join(", ") };
                let detail = format!("unknown setting {name:?} in the URL; accepted: {accepted}");
                Err(Error::new(Kind::Invalid, "open", "the store", detail))
            }
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    fn endpoint(&self) -> Result<Option<String>, Error> {
        let Some(text) = self.value("endpoint") else { return Ok(None) };
        let bad = |detail: &str| Error::new(Kind::Invalid, "open", "the store", detail);
        let url = Url::parse(&text).map_err(|_| bad("endpoint must be http://HOST:PORT or https://HOST:PORT"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("the endpoint holds credentials: take them out and set them in the environment"));
        }
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("endpoint must be http://HOST:PORT or https://HOST:PORT"));
        }
        Ok(Some(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_stores() {
        let s3 = Location::parse("s3://b/a/b/?endpoint=http://127.0.0.1:9000/&region=eu-west-1&path_style=true");
        let expected = S3 {
            bucket: "b".into(),
            prefix: "a/b".into(),
            endpoint: Some("http://127.0.0.1:9000".into()),
            region: Some("eu-west-1".into()),
            path_style: true,
        };
        assert_eq!(s3, Ok(Location::S3(expected)));
        assert_eq!(Location::parse("file:///tmp/x"), Ok(Location::File { dir: "/tmp/x".into() }));
        assert_eq!(Location::parse("memory:"), Ok(Location::Memory));
        assert_eq!(Location::parse("gs://b/p").map(|l| l.describe()), Ok("gs://b/p".to_owned()));
        assert_eq!(Location::parse("az://c?account=a").map(|l| l.describe()), Ok("az://c".to_owned()));
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_refused_without_repeating_them() {
        let line = |url: &str| Location::parse(url).expect_err("refused").to_string();
        for url in ["s3://AKIA:hunter2@b/p", "s3://b/p?secret_access_key=hunter2", "s3://b?endpoint=http://u:hunter2@h"]
        {
            assert!(line(url).contains("environment") && !line(url).contains("hunter2"), "{}", line(url));
        }
        assert!(line("s3://b?regoin=x").contains("regoin"));
        assert!(line("s3:///p").contains("without a bucket"));
        assert!(line("ftp://h/p").contains("unknown scheme ftp"));
        assert!(line("nonsense").contains("not a URL"));
        assert!(line("s3://b?endpoint=localhost:9000").contains("endpoint must be"));
        assert!(line("s3://b/p%20q").contains("only A-Z"));
    }

    #[test]
    fn an_object_is_named_by_its_store_and_its_key() {
        let split = |url: &str| Location::parse(url).expect("valid").split_key();
        let (store, key) = split("s3://b/logs/0/7/4/3-1?region=r").expect("a key");
        assert_eq!((store.describe(), key), ("s3://b/logs/0/7/4".to_owned(), "3-1".to_owned()));
        let (store, key) = split("gs://b/x").expect("a key");
        assert_eq!((store.describe(), key), ("gs://b".to_owned(), "x".to_owned()));
        assert_eq!((split("az://c"), split("memory:")), (None, None));
    }

    #[test]
    fn keys_hold_nothing_that_a_store_reads_its_own_way() {
        assert_eq!(check_key("seg/01/0-a.b_c=d"), Ok(()));
        for bad in ["", "/a", "a/", "a//b", "a/../b", "a b", "a#1", "ä", "a%2f"] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
    }
}
