//! A machine that a person switches.

use bootstorm_model::PowerState;

use crate::{Answer, Parameters, PowerDriver, PowerError};

/// The driver of machines without a BMC: every command is left to a person, and nothing is known about the state.
#[derive(Debug)]
pub struct Manual(());

impl Manual {
    /// Fails if there are parameters, since it has none.
    pub fn new(parameters: &Parameters) -> Result<Self, PowerError> {
        match parameters.keys().next() {
            None => Ok(Self(())),
            Some(name) => Err(PowerError::Parameter {
                name: crate::fetch::excerpt(name.as_bytes()),
                problem: "is not one of driver `manual`, which has none".to_string(),
            }),
        }
    }
}

impl PowerDriver for Manual {
    fn on(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn off(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn query(&self) -> Answer<'_, PowerState> {
        Box::pin(std::future::ready(Ok(PowerState::Unknown)))
    }

    fn can_query(&self) -> bool {
        false
    }
}
