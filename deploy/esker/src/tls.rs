//! A private certificate authority for one cluster, and the certificates it issues. Everything is made at run time;
//! keys are readable by their owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::{Duration, OffsetDateTime};

const CA_YEARS: i64 = 10;
const LEAF_YEARS: i64 = 2;

/// Files of an authority in a folder.
pub struct Authority {
    folder: PathBuf,
}

/// Paths of an issued certificate and its key, PEM.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// Makes a new authority. Refuses to replace one: every certificate it issued would stop working.
    pub fn create(folder: &Path, cluster: &str) -> Result<Self> {
        let authority = Self { folder: folder.to_owned() };
        if authority.key_path().exists() {
            bail!(
                "{} exists already; remove it first if you mean to replace the authority",
                authority.key_path().display()
            );
        }
        fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Esker cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, CA_YEARS);
        let certificate = params.self_signed(&key)?;
        write_private(&authority.key_path(), &key.serialize_pem())?;
        write_public(&authority.certificate_path(), &certificate.pem())?;
        write_public(&folder.join("cluster"), cluster)?;
        Ok(authority)
    }

    pub fn open(folder: &Path) -> Result<Self> {
        let authority = Self { folder: folder.to_owned() };
        for path in [authority.key_path(), authority.certificate_path()] {
            if !path.exists() {
                bail!(
                    "{} is missing; make an authority with `esker tls init --dir {}`",
                    path.display(),
                    folder.display()
                );
            }
        }
        Ok(authority)
    }

    /// The word for the cluster in the names that this authority signs.
    pub fn cluster(&self) -> Result<String> {
        let path = self.folder.join("cluster");
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Issues a certificate for a node or client. Role and name travel as `esker://CLUSTER/ROLE/NAME`.
    pub fn issue(&self, role: &str, name: &str, hosts: &[String], into: &Path) -> Result<Issued> {
        let ca_key = KeyPair::from_pem(&read(&self.key_path())?).context("the authority's key does not parse")?;
        let issuer = Issuer::from_ca_cert_pem(&read(&self.certificate_path())?, ca_key)
            .context("the authority's certificate does not parse")?;
        let mut params =
            CertificateParams::new(hosts.to_vec()).context("a --san is neither a host name nor an address")?;
        params.distinguished_name.push(DnType::CommonName, name);
        let identity = format!("esker://{}/{role}/{name}", self.cluster()?);
        params
            .subject_alt_names
            .push(SanType::URI(identity.as_str().try_into().context("the name does not fit a URI")?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        validity(&mut params, LEAF_YEARS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        fs::create_dir_all(into).with_context(|| format!("can't create {}", into.display()))?;
        let issued = Issued { certificate: into.join(format!("{name}.pem")), key: into.join(format!("{name}.key")) };
        write_private(&issued.key, &key.serialize_pem())?;
        write_public(&issued.certificate, &certificate.pem())?;
        Ok(issued)
    }
}

fn validity(params: &mut CertificateParams, years: i64) {
    let now = OffsetDateTime::now_utc();
    // An hour back: clocks of a cluster differ, and a certificate that is not valid yet stops a node.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(365 * years);
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600)
}

fn write_public(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let open = options.write(true).create(true).truncate(true).mode(mode).open(path);
    let mut file = open.with_context(|| format!("can't write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn issues_for_a_role_and_keeps_keys_private() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::create(folder.path(), "test").expect("created");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = authority.issue("bookie", "b-1", &hosts, folder.path()).expect("issued");
        let mode = fs::metadata(&issued.key).expect("written").permissions().mode();
        assert_eq!(mode & 0o077, 0);
        assert!(Authority::create(folder.path(), "test").is_err(), "an authority is never replaced by accident");
    }
}
