//! Why an instruction is not completed.

use std::io;

use super::cpu::{Exception, NoMemory};

/// See the module's text.
#[derive(Debug)]
pub enum Stop {
    /// It raises an exception of the guest's.
    Fault(Exception),
    /// Another vCPU got in between; the guest is to execute it again.
    Again,
    /// It is not one that is known, or it uses what is not: device memory, for one.
    Unknown,
    /// The host refuses a call.
    Host(io::Error),
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Fault(exception)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl From<NoMemory> for Stop {
    fn from(NoMemory: NoMemory) -> Self {
        Self::Unknown
    }
}
