//! Making a bucket ready.

use std::pin::Pin;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, BucketVersioningStatus,
    CreateBucketConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
};
use aws_smithy_http_client::tls;

use crate::error::Error;

/// Which bucket, and as whom.
#[derive(Clone)]
pub struct Target {
    pub bucket: String,
    /// `http://host:port` of a compatible store; Amazon's own if none.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: bool,
    pub key_id: String,
    pub secret_key: String,
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("bucket", &self.bucket).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// One step of the set-up and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: &'static str,
    pub result: StepResult,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Changed just now.
    Done(String),
    /// It was so already.
    Already(String),
    /// Works without, with this consequence.
    Warning(String),
}

/// A connection for administration.
#[derive(Debug)]
pub struct Admin {
    client: Client,
    bucket: String,
    region: String,
    /// Amazon wants to be told the region of a new bucket; others mostly refuse to be told.
    amazon: bool,
}

const RULE: &str = "esker-abort-incomplete-uploads";
/// Longer than any upload lasts, short enough that what a crash leaves costs little.
const ABORT_AFTER_DAYS: i32 = 1;
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);

/// What is awaited without its type being known.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Admin {
    pub fn new(target: Target) -> Self {
        let region = target.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let credentials = Credentials::new(target.key_id, target.secret_key, target.session_token, None, "environment");
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(PATIENCE).build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .credentials_provider(credentials)
            .region(Region::new(region.clone()))
            .force_path_style(target.path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts)
            // Compatible stores do not know the newer checksum headers.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = &target.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(config.build());
        Self { client, bucket: target.bucket, region, amazon: target.endpoint.is_none() }
    }

    /// Makes the bucket if there is none, has the store remove abandoned uploads, and looks at versioning. Safe to
    /// repeat; rules and settings that are there stay.
    ///
    /// # Errors
    /// The first step that failed; the ones before it stay done.
    pub fn setup(&self) -> BoxFuture<'_, Result<Vec<Step>, Error>> {
        // Boxed here: the SDK's machinery behind it is then compiled with this crate, and not with whoever awaits it.
        Box::pin(async {
            Ok(vec![
                Step { name: "bucket", result: self.create().await? },
                Step { name: "abandoned uploads", result: self.lifecycle().await? },
                Step { name: "versioning", result: self.versioning().await? },
            ])
        })
    }

    async fn create(&self) -> Result<StepResult, Error> {
        let action = "look at the bucket";
        match self.client.head_bucket().bucket(&self.bucket).send().await.map_err(|e| Error::new(action, &e)) {
            Ok(_) => return Ok(StepResult::Already("exists".to_owned())),
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut request = self.client.create_bucket().bucket(&self.bucket);
        // The one region that may not be named.
        if self.amazon && self.region != "us-east-1" {
            let place = BucketLocationConstraint::from(self.region.as_str());
            request = request
                .create_bucket_configuration(CreateBucketConfiguration::builder().location_constraint(place).build());
        }
        let made = request.send().await;
        match made {
            Ok(_) => Ok(StepResult::Done(format!("created in {}", self.region))),
            // Somebody was faster, or our own first try was applied and its answer lost.
            Err(error) if error.as_service_error().is_some_and(|e| e.is_bucket_already_owned_by_you()) => {
                Ok(StepResult::Already("exists".to_owned()))
            }
            Err(error) => Err(Error::new("create the bucket", &error)),
        }
    }

    /// Parts of uploads that nobody will finish cost like objects and are seen by no listing.
    async fn lifecycle(&self) -> Result<StepResult, Error> {
        let found = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await;
        let mut rules = match found {
            Ok(found) => found.rules().to_vec(),
            Err(error) => match Error::new("read the lifecycle rules", &error) {
                Error::Missing { .. } => Vec::new(),
                Error::Unsupported { detail, .. } => return Ok(unsupported(&detail)),
                error => return Err(error),
            },
        };
        let has = |rule: &LifecycleRule| {
            rule.status() == &ExpirationStatus::Enabled && rule.abort_incomplete_multipart_upload().is_some()
        };
        if let Some(rule) = rules.iter().find(|rule| has(rule)) {
            return Ok(StepResult::Already(format!("removed by rule {:?}", rule.id().unwrap_or_default())));
        }
        let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(ABORT_AFTER_DAYS).build();
        let rule = LifecycleRule::builder()
            .id(RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .abort_incomplete_multipart_upload(abort)
            .build();
        let failed = |detail: String| Error::Other { action: "build the lifecycle rules", detail };
        rules.push(rule.map_err(|e| failed(e.to_string()))?);
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        let rules = rules.map_err(|e| failed(e.to_string()))?;
        let request =
            self.client.put_bucket_lifecycle_configuration().bucket(&self.bucket).lifecycle_configuration(rules);
        match request.send().await.map_err(|e| Error::new("write the lifecycle rules", &e)) {
            Ok(_) => Ok(StepResult::Done(format!("removed by the store after {ABORT_AFTER_DAYS} day"))),
            Err(Error::Unsupported { detail, .. }) => Ok(unsupported(&detail)),
            Err(error) => Err(error),
        }
    }

    async fn versioning(&self) -> Result<StepResult, Error> {
        let found = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        match found.map_err(|e| Error::new("read the versioning setting", &e)) {
            Ok(found) if found.status() == Some(&BucketVersioningStatus::Enabled) => Ok(StepResult::Warning(
                "on: deleted objects stay and cost as old versions; suspend it, or expire old versions by a lifecycle \
                 rule"
                    .to_owned(),
            )),
            Ok(_) => Ok(StepResult::Already("off, as it should be".to_owned())),
            Err(Error::Unsupported { .. }) => Ok(StepResult::Already("the store has none".to_owned())),
            // Only advice hangs on it, and compatible stores answer in forms of their own.
            Err(error) => Ok(StepResult::Warning(error.to_string())),
        }
    }
}

fn unsupported(detail: &str) -> StepResult {
    StepResult::Warning(format!(
        "the store has no lifecycle rules ({detail}): remove incomplete uploads older than a day by its own means"
    ))
}
