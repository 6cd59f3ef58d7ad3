//! `esker tls`: a certificate authority for a cluster's nodes and gateways.

use anyhow::Result;

use crate::args::Tls;
use crate::tls::Authority;

pub fn run(command: Tls) -> Result<()> {
    match command {
        Tls::Init { dir, cluster } => {
            let authority = Authority::create(&dir, &cluster)?;
            eprintln!("made {}; clients trust it with --ca", authority.certificate_path().display());
        }
        Tls::Issue { dir, role, name, hosts, into } => {
            let issued = Authority::open(&dir)?.issue(&role, &name, &hosts, into.as_deref().unwrap_or(&dir))?;
            eprintln!("wrote {} and {}", issued.certificate.display(), issued.key.display());
        }
    }
    Ok(())
}
