//! Suspension of a domain whose programs use its xenbus. The resumed guest kernel ends the transactions from before,
//! which the new xenstored does not know, and sets all watches again (drivers/xen/xenbus/xenbus_dev_frontend.c,
//! `xenbus_write_transaction`; xenbus_xs.c, `xs_resume`).

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{HEADER, word};

/// Numbers of messages (xen/include/public/io/xs_wire.h, `enum xsd_sockmsg_type`).
pub(super) const WATCH: u32 = 4;
const UNWATCH: u32 = 5;
const TRANSACTION_START: u32 = 6;
const TRANSACTION_END: u32 = 7;
const ERROR: u32 = 16;

/// Countdown of requests until the domain is suspended.
#[derive(Debug, Default)]
pub(super) struct Schedule(Mutex<Option<usize>>);

impl Schedule {
    /// Suspends the domain before the `nth` request in a transaction from now on; 1 is the next.
    pub(super) fn set(&self, nth: usize) {
        *self.requests() = Some(nth);
    }

    /// Returns true if no suspension is scheduled.
    pub(super) fn is_over(&self) -> bool {
        self.requests().is_none()
    }

    /// Counts a request. Returns true if the domain is suspended before it.
    pub(super) fn is_due(&self, request: &[u8]) -> bool {
        if word(request, 2) == 0 {
            return false;
        }
        let mut requests = self.requests();
        *requests = match *requests {
            Some(nth) if nth > 1 => Some(nth - 1),
            Some(_) => {
                *requests = None;
                return true;
            }
            None => return false,
        };
        false
    }

    fn requests(&self) -> MutexGuard<'_, Option<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State that the guest kernel has of its program.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Watches, as the bodies of the requests that set them.
    pub(super) watches: Vec<Vec<u8>>,
    /// Transactions that xenstored knows, and those from before the suspension.
    open: BTreeSet<u32>,
    lost: BTreeSet<u32>,
}

impl Known {
    /// Marks the open transactions as lost, because the domain was suspended.
    pub(super) fn suspended(&mut self) {
        self.lost.append(&mut self.open);
    }

    /// Records a request. Returns the answer if the kernel's driver gives it itself.
    pub(super) fn request(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (transaction, body) = (word(message, 2), &message[HEADER..]);
        match word(message, 0) {
            WATCH => self.watches.push(body.to_vec()),
            UNWATCH => self.watches.retain(|watch| watch != body),
            TRANSACTION_END if self.lost.remove(&transaction) => {
                return Some(match body {
                    b"T\0" => reply(message, ERROR, b"EAGAIN\0"),
                    _ => reply(message, TRANSACTION_END, b"OK\0"),
                });
            }
            TRANSACTION_END => drop(self.open.remove(&transaction)),
            _ => {}
        }
        None
    }

    /// Records a reply of xenstored.
    pub(super) fn reply(&mut self, message: &[u8]) {
        if word(message, 0) == TRANSACTION_START {
            let number = String::from_utf8_lossy(&message[HEADER..]);
            self.open.extend(number.trim_end_matches('\0').parse::<u32>());
        }
    }
}

/// Makes a reply to a request.
fn reply(request: &[u8], operation: u32, body: &[u8]) -> Vec<u8> {
    let words = [operation, word(request, 1), word(request, 2), body.len() as u32];
    let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend_from_slice(body);
    message
}
