//! From a URL to a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::class::{Class, Gates};
use super::error::{Error, Kind};
use super::location::{Location, S3};
use super::metrics::StoreMetrics;
use super::retry::RetryBudget;
use super::{Inner, Store};
use crate::config::StoreConfig;

/// Keys to an AWS account, as found in the environment.
#[derive(Clone)]
pub struct AwsCredentials {
    pub key_id: String,
    pub secret_key: String,
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsCredentials(..)")
    }
}

/// A store's parts: objects, uploads in parts, credentials.
type Parts = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>, Option<object_store::aws::AwsCredentialProvider>);

impl Store {
    /// Opens a store without talking to it yet; [`Store::probe`] does that. Credentials come from the environment of
    /// the process (`AWS_…`, `GOOGLE_…`, `AZURE_…`, instance roles).
    ///
    /// # Errors
    /// `Invalid` or `Disk`, in one line.
    pub fn open(url: &str, config: StoreConfig, metrics: StoreMetrics) -> Result<Self, Error> {
        Self::open_as(Location::parse(url)?, None, config, metrics)
    }

    /// As [`Store::open`], for a location that is parsed already, and on S3 with these credentials instead of those of
    /// the environment.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_as(
        location: Location,
        credentials: Option<AwsCredentials>,
        config: StoreConfig,
        metrics: StoreMetrics,
    ) -> Result<Self, Error> {
        // The HTTP client takes its cryptography from the process and panics where there is none.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        let (objects, parts, aws) = match &location {
            Location::Memory => {
                let store = Arc::new(InMemory::new());
                (store.clone() as Arc<dyn ObjectStore>, Some(store as _), None)
            }
            Location::File { dir } => (folder(dir)?, None, None),
            Location::S3(s3) => amazon(s3, credentials, &config).map_err(|e| opening(&location, e))?,
            Location::Google { bucket, endpoint, .. } => {
                google(bucket, endpoint.as_deref(), &config).map_err(|e| opening(&location, e))?
            }
            Location::Azure { container, account, endpoint, .. } => {
                azure(container, account.as_deref(), endpoint.as_deref(), &config).map_err(|e| opening(&location, e))?
            }
        };
        let gates = Gates::new(&config);
        let budget = RetryBudget::new(config.retry_budget);
        Ok(Self { inner: Arc::new(Inner { objects, parts, aws, location, config, gates, budget, metrics }) })
    }

    /// Asks the store whether it is there and lets us in, by looking below the prefix.
    ///
    /// # Errors
    /// One line that tells an unreachable store, a missing bucket, a wrong region, bad credentials and missing
    /// permission apart.
    pub async fn probe(&self) -> Result<(), Error> {
        match &self.inner.location {
            // Listing a folder would walk through all of it.
            Location::File { dir } => std::fs::read_dir(dir).map(|_| ()).map_err(|e| disk(dir, &e)),
            _ => self.list("", None, 1, Class::Foreground).await.map(|_| ()),
        }
    }

    /// The credentials in use; none if the store is not S3.
    ///
    /// # Errors
    /// `Credentials` if there are none to be had.
    pub async fn aws_credentials(&self) -> Result<Option<AwsCredentials>, Error> {
        let Some(provider) = &self.inner.aws else { return Ok(None) };
        let found = tokio::time::timeout(self.inner.config.attempt_timeout.0, provider.get_credential()).await;
        let subject = self.inner.location.describe();
        match found {
            Err(_) => Err(Error::new(Kind::Credentials, "open", subject, "the credential service does not answer")),
            Ok(Err(error)) => Err(Error::new(Kind::Credentials, "open", subject, error.to_string())),
            Ok(Ok(found)) => Ok(Some(AwsCredentials {
                key_id: found.key_id.clone(),
                secret_key: found.secret_key.clone(),
                session_token: found.token.clone(),
            })),
        }
    }
}

fn opening(location: &Location, error: object_store::Error) -> Error {
    let mut error = Error::from_store("open", &location.describe(), error);
    if error.kind.retryable() || error.kind == Kind::BadAnswer {
        // Nothing was sent yet: what failed is the configuration.
        error.kind = Kind::Invalid;
    }
    error
}

fn folder(dir: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(dir).map_err(|e| disk(dir, &e))?;
    let store =
        LocalFileSystem::new_with_prefix(dir).map_err(|e| Error::from_store("open", &dir.display().to_string(), e))?;
    // Without fsync an object could be committed to metadata and be gone after a power cut.
    Ok(Arc::new(store.with_fsync(true)))
}

fn disk(dir: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::PermissionDenied { Kind::Denied } else { Kind::Disk };
    Error::new(kind, "open", format!("file://{}", dir.display()), error.to_string())
}

/// Retries are ours: under one budget and deadline, with metrics, and knowing which outcomes are unknown.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(1), ..RetryConfig::default() }
}

/// Time-outs of a try are ours too, because they depend on its size.
fn client(config: &StoreConfig, plain_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(config.connect_timeout.0)
        .with_allow_http(plain_http)
}

fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|e| e.starts_with("http://"))
}

fn amazon(s3: &S3, credentials: Option<AwsCredentials>, config: &StoreConfig) -> Result<Parts, object_store::Error> {
    let plain = is_plain(s3.endpoint.as_deref());
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_client_options(client(config, plain))
        .with_retry(no_retries())
        // Some compatible stores lack the bulk request, and deletes are rare.
        .with_disable_bulk_delete(true)
        .with_virtual_hosted_style_request(s3.endpoint.is_none() && !s3.path_style);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(virtual_host(endpoint, s3)).with_allow_http(plain);
        builder = builder.with_virtual_hosted_style_request(!s3.path_style);
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(AwsCredentials { key_id, secret_key, session_token: token }) = credentials {
        let given = object_store::aws::AwsCredential { key_id, secret_key, token };
        builder = builder.with_credentials(Arc::new(object_store::StaticCredentialProvider::new(given)));
    }
    let store = Arc::new(builder.build()?);
    let credentials = store.credentials().clone();
    Ok((store.clone(), Some(store), Some(credentials)))
}

/// With an endpoint the library takes the host as it is: without `path_style` the bucket belongs into it.
fn virtual_host(endpoint: &str, s3: &S3) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) if !s3.path_style => format!("{scheme}://{}.{host}", s3.bucket),
        _ => endpoint.to_owned(),
    }
}

fn google(bucket: &str, endpoint: Option<&str>, config: &StoreConfig) -> Result<Parts, object_store::Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(config, is_plain(endpoint)))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let store = Arc::new(builder.build()?);
    Ok((store.clone(), Some(store), None))
}

fn azure(
    container: &str,
    account: Option<&str>,
    endpoint: Option<&str>,
    config: &StoreConfig,
) -> Result<Parts, object_store::Error> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(config, is_plain(endpoint)))
        .with_retry(no_retries());
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.to_owned()).with_allow_http(is_plain(Some(endpoint)));
    }
    let store = Arc::new(builder.build()?);
    Ok((store.clone(), Some(store), None))
}
