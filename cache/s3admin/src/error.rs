//! Failures of administration, one line each.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as _;

/// What the store said, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("can't {action}: can't reach the store: check the endpoint and the network ({detail})")]
    Unreachable { action: &'static str, detail: String },
    #[error("can't {action}: no permission ({detail})")]
    Denied { action: &'static str, detail: String },
    #[error("can't {action}: credentials are missing, wrong or expired: set them in the environment ({detail})")]
    Credentials { action: &'static str, detail: String },
    #[error("can't {action}: the bucket is in another region: put region=... into the URL ({detail})")]
    Region { action: &'static str, detail: String },
    #[error("can't {action}: the name is taken by somebody else: choose another bucket ({detail})")]
    Taken { action: &'static str, detail: String },
    /// This store has no such thing.
    #[error("can't {action}: the store does not know how ({detail})")]
    Unsupported { action: &'static str, detail: String },
    /// There is no such bucket or setting.
    #[error("can't {action}: there is none ({detail})")]
    Missing { action: &'static str, detail: String },
    #[error("can't {action}: {detail}")]
    Other { action: &'static str, detail: String },
}

impl Error {
    pub(crate) fn new<E, R>(action: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let SdkError::ServiceError(service) = error else {
            let detail = deepest(error.source()).unwrap_or_else(|| error.to_string());
            return match error {
                SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => Self::Unreachable { action, detail },
                _ => Self::Other { action, detail },
            };
        };
        let code = service.err().code().unwrap_or_default();
        let message = service.err().message().unwrap_or_default();
        let mut detail: String = format!("{code} {message}").trim().chars().take(240).collect();
        if detail.is_empty() {
            detail = deepest(service.err().source()).unwrap_or_else(|| "the answer is not understood".to_owned());
        }
        match code {
            "AccessDenied" | "AllAccessDisabled" | "Forbidden" => Self::Denied { action, detail },
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" => {
                Self::Credentials { action, detail }
            }
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                Self::Region { action, detail }
            }
            "BucketAlreadyExists" => Self::Taken { action, detail },
            "NotImplemented" | "MethodNotAllowed" | "NotSupported" => Self::Unsupported { action, detail },
            "NoSuchBucket" | "NoSuchLifecycleConfiguration" | "NotFound" => Self::Missing { action, detail },
            _ => Self::Other { action, detail },
        }
    }
}

fn deepest(mut error: Option<&(dyn std::error::Error + 'static)>) -> Option<String> {
    let mut text = None;
    while let Some(inner) = error {
        text = Some(inner.to_string());
        error = inner.source();
    }
    text
}
