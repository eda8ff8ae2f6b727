//! Logging in when asked to, and trying again when that may help.

use http::{HeaderValue, StatusCode};

use super::exchange::Failure;
use super::{Answer, Call, Client, Payload, Target};
use crate::challenge::Demand;
use crate::error::RegistryError;
use crate::fault::{FaultKind, TransportFault};
use crate::host::{Host, Role};
use crate::retry::RetryPolicy;

/// How often a login is renewed for one request: none yet, expired, not enough.
const MOST_LOGINS: usize = 3;

impl Client {
    /// Sends `call` to `host`, logging in and trying again as needed.
    ///
    /// The answer may have any status; one that may be another in a moment has been tried to the end.
    pub(crate) async fn send(&self, host: &Host, call: &Call) -> Result<Answer, RegistryError> {
        let policy = self.policy(host);
        let mut tries = 0;
        loop {
            tries += 1;
            let result = self.send_with_login(host, call).await;
            let Some(pause) = pause(&policy, tries, &result) else {
                return result.map_err(|failure| self.give_up(host, call, failure));
            };
            self.wait(host, call, tries, pause).await;
        }
    }

    /// Sends `call` once, logging in as needed, and leaves it to the caller to try again.
    pub(super) async fn send_once(&self, host: &Host, call: &Call) -> Result<Answer, RegistryError> {
        let result = self.send_with_login(host, call).await;
        result.map_err(|failure| self.give_up(host, call, failure))
    }

    /// Sends `call` without logging in, as to the server that makes logins.
    pub(crate) async fn send_plainly(&self, host: &Host, call: &Call) -> Result<Answer, RegistryError> {
        let policy = self.policy(host);
        let mut tries = 0;
        loop {
            tries += 1;
            let result = self.exchange(host, call, None).await;
            let Some(pause) = pause(&policy, tries, &result) else {
                return result.map_err(|failure| self.give_up(host, call, failure));
            };
            self.wait(host, call, tries, pause).await;
        }
    }

    /// A mirror is not waited for: the next one, or the registry itself, is there.
    fn policy(&self, host: &Host) -> RetryPolicy {
        match host.role() {
            Role::Origin => self.shared.retry.clone(),
            Role::Mirror => RetryPolicy::never(),
        }
    }

    pub(super) async fn wait(&self, host: &Host, call: &Call, tries: u32, pause: std::time::Duration) {
        tracing::debug!(host = host.authority, action = call.action, tries, ?pause, "trying again");
        self.clock().sleep(pause).await;
    }

    async fn send_with_login(&self, host: &Host, call: &Call) -> Result<Answer, Failure> {
        let mut scopes = call.scopes.clone();
        let mut rejected: Option<HeaderValue> = None;
        for round in 1.. {
            let authorization = self
                .authorization(host, &scopes, rejected.as_ref(), &call.action)
                .await
                .map_err(Failure::Fatal)?;
            let value = authorization.as_ref().map(|authorization| &authorization.value);
            let answer = {
                // A piece of a blob has a permit for the whole transfer.
                let is_piece = matches!(call.body, Payload::Piece(_));
                let _permit = if is_piece { None } else { host.requests.acquire().await.ok() };
                self.exchange(host, call, value).await?
            };
            log(host, call, &answer);
            if answer.status != StatusCode::UNAUTHORIZED || round > MOST_LOGINS {
                return Ok(answer);
            }
            let foreign = match &call.target {
                Target::Path(_) => false,
                Target::Url(url) => host.adopt(url.clone()).is_none(),
            };
            let Some(demand) = Demand::select(&answer.headers).filter(|_| !foreign) else {
                return Ok(answer);
            };
            let before = scopes.clone();
            if let Demand::Bearer { scope: Some(scope), .. } = &demand {
                scopes.merge_text(scope);
            }
            let wants_more = scopes != before;
            host.auth.learn(demand);
            match authorization {
                // It was made for this request and refused; another one of the kind will be too.
                Some(authorization) if authorization.fresh && !wants_more => return Ok(answer),
                Some(authorization) => rejected = Some(authorization.value),
                // Nothing was sent before and nothing can be now.
                None if round > 1 => return Ok(answer),
                None => {}
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn give_up(&self, host: &Host, call: &Call, failure: Failure) -> RegistryError {
        let action = call.action.clone();
        match failure {
            Failure::Fatal(error) => error,
            Failure::Fault { origin, fault } => {
                if host.role() == Role::Mirror {
                    self.rest(host);
                }
                fault_error(action, origin, fault)
            }
        }
    }
}

/// Makes an error of a fault.
pub(crate) fn fault_error(action: String, origin: String, fault: TransportFault) -> RegistryError {
    if fault.is_tls() {
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host).to_owned();
        return RegistryError::Tls { action, host, source: fault };
    }
    match fault.kind() {
        FaultKind::Broken | FaultKind::NotHttp => {
            RegistryError::Interrupted { action, origin, source: fault }
        }
        _ => RegistryError::Unreachable { action, origin, source: fault },
    }
}

fn pause(policy: &RetryPolicy, tries: u32, result: &Result<Answer, Failure>) -> Option<std::time::Duration> {
    match result {
        Ok(answer) => policy.after_answer(tries, answer.status, &answer.headers),
        Err(Failure::Fault { fault, .. }) => policy.after_fault(tries, fault),
        Err(Failure::Fatal(_)) => None,
    }
}

fn log(host: &Host, call: &Call, answer: &Answer) {
    tracing::debug!(
        host = host.authority,
        method = %call.method,
        action = call.action,
        status = answer.status.as_u16(),
        "registry answered"
    );
}
