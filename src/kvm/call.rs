//! What is the same for all calls to KVM: their errors as the standard library's, and a second try.

use std::io;

/// What a call that failed says.
pub(super) fn host_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// Makes a call again until no signal has come in between: one that stops the process and lets it
/// go on, as ^Z and fg do, ends a call that waits in the kernel.
pub(super) fn uninterrupted<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_a_signal_has_ended_is_made_again() {
        let mut results = [libc::EINTR, libc::EINTR, libc::ENOMEM].into_iter();
        let mut call = || Err::<(), _>(kvm_ioctls::Error::new(results.next().unwrap()));
        assert_eq!(uninterrupted(&mut call).unwrap_err().errno(), libc::ENOMEM);
        assert_eq!(uninterrupted(|| Ok(7)).unwrap(), 7);
    }
}
