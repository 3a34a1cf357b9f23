//! What a guest kernel does when its domain was suspended and is somewhere else, while programs use its xenbus: it ends
//! the transactions of before, which its xenstored does not know, and sets all watches again
//! (drivers/xen/xenbus/xenbus_dev_frontend.c, `xenbus_write_transaction`; xenbus_xs.c, `xs_resume`).

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

/// When the domain is suspended next.
#[derive(Debug, Default)]
pub(super) struct Schedule(Mutex<Option<usize>>);

impl Schedule {
    /// Before that one of the requests that are made in transactions from now on: 1 is the next.
    pub(super) fn set(&self, nth: usize) {
        *self.requests() = Some(nth);
    }

    /// Whether it is not to be suspended any more.
    pub(super) fn is_over(&self) -> bool {
        self.requests().is_none()
    }

    /// A request: whether the domain is suspended before it.
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

/// What the kernel knows of its program.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Its watches: the body of the message that sets each.
    pub(super) watches: Vec<Vec<u8>>,
    /// Its transactions that xenstored knows, and those from before the domain was suspended.
    open: BTreeSet<u32>,
    lost: BTreeSet<u32>,
}

impl Known {
    /// The domain was suspended.
    pub(super) fn suspended(&mut self) {
        self.lost.append(&mut self.open);
    }

    /// Takes note of a request. What the driver itself answers it with, if it does.
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

    /// Takes note of what xenstored says.
    pub(super) fn reply(&mut self, message: &[u8]) {
        if word(message, 0) == TRANSACTION_START {
            let number = String::from_utf8_lossy(&message[HEADER..]);
            self.open.extend(number.trim_end_matches('\0').parse::<u32>());
        }
    }
}

/// A message in answer to another.
fn reply(request: &[u8], operation: u32, body: &[u8]) -> Vec<u8> {
    let words = [operation, word(request, 1), word(request, 2), body.len() as u32];
    let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend_from_slice(body);
    message
}
