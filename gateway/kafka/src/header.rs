use crate::api::Api;
use crate::error::DecodeError;
use crate::field::Form;
use crate::reader::Reader;
use crate::writer::Writer;

/// What stands in front of every request. Its first three fields never change their form, so that also a request of an
/// unknown version can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub version: i16,
    /// The client's own number; comes back with the answer.
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Of an API or version that is not in the table, only the first three fields are read.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let (api_key, version, correlation_id) = (from.i16()?, from.i16()?, from.i32()?);
        let mut header = Self { api_key, version, correlation_id, client_id: None };
        if let Some(form) = header.form() {
            // Never compact, so that old brokers can read it.
            header.client_id = from.string(false)?;
            if form.flexible {
                from.skip_tags()?;
            }
        }
        Ok(header)
    }

    /// The API, if the table has it in this version.
    pub fn api(&self) -> Option<Api> {
        Api::from_key(self.api_key).filter(|api| api.has(self.version))
    }

    fn form(&self) -> Option<Form> {
        self.api().map(|api| api.form(self.version))
    }

    pub(crate) fn encode(&self, into: &mut Writer, form: Form) {
        into.i16(self.api_key);
        into.i16(self.version);
        into.i32(self.correlation_id);
        into.string(self.client_id.as_deref(), false);
        if form.flexible {
            into.uvarint(0);
        }
    }
}
