//! Errors as the API server says them: `Status` objects with an HTTP code and a reason.

use serde_json::{Value, json};

use super::resources::Resource;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// The machine-readable reason: `NotFound`, `Expired`, ...
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details.causes[0].reason`, which some clients look at.
    pub cause: Option<&'static str>,
    /// A token with which an expired list may be continued, inconsistently.
    pub continue_token: Option<String>,
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), cause: None, continue_token: None }
    }

    /// 404: no such object.
    pub fn no_object(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(resource)))
    }

    /// 404: no such path, which is also how an unknown resource looks.
    pub fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 403: the fault switch for this resource is on.
    pub fn forbidden(resource: &Resource, verb: &str) -> Self {
        let what = qualified(resource);
        Self::new(403, "Forbidden", format!("{what} is forbidden: User \"fairlead\" cannot {verb} resource \"{what}\""))
    }

    /// 401: the bearer token is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405: not for this path.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409: exists already.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(resource)))
    }

    /// 409: the caller has an old version.
    pub fn conflict(resource: &Resource, name: &str) -> Self {
        let what = qualified(resource);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{name}\": it has been modified"))
    }

    /// 410: the version asked for is no longer known.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410: a page of a list whose version is no longer known.
    pub fn continue_expired(continue_token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result.";
        Self { continue_token: Some(continue_token), ..Self::new(410, "Expired", message) }
    }

    /// 415: a kind of patch that is not implemented.
    pub fn media_type(got: &str) -> Self {
        Self::new(415, "UnsupportedMediaType", format!("the body of the request was in an unknown format: {got}"))
    }

    /// 422: fields that do not go together.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// 504: a version that this server has not reached.
    pub fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self { cause: Some("ResourceVersionTooLarge"), ..Self::new(504, "Timeout", message) }
    }

    /// The `Status` object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(cause) = self.cause {
            status["details"] = json!({"causes": [{"reason": cause, "message": cause}]});
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        status
    }
}

/// `services` or `endpointslices.discovery.k8s.io`.
fn qualified(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}
