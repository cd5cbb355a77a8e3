//! A panic is a fault of ours that no caller returns: the process' hook tells the journals of it.

use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, Once, PoisonError};

use super::{Fault, FaultKind, Journal, Severity};

/// The journal that panics are told to: there is one hook in a process, and one role speaks for it.
static TOLD: Mutex<Option<Arc<Journal>>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// From here on a panic of this process stands in the `error_logs` of this journal, behind what the hook before does. Of several
/// journals the newest is told.
pub(super) fn tell(journal: &Arc<Journal>) {
    *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal.clone());
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            before(info);
            record(info);
        }));
    });
}

fn record(info: &PanicHookInfo<'_>) {
    // Never waits: the thread that panics may hold the lock.
    let journal = TOLD.try_lock().ok().and_then(|told| told.clone());
    let Some(journal) = journal else { return };
    // The place alone: what a panic says may quote what was sent.
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    journal.fault(&Fault {
        kind: FaultKind::System,
        code: "panic",
        message: "The program has a fault: a thread panicked. The process' own log says why.",
        causes: &place,
        user: None,
        severity: Severity::High,
    });
}
