//! A change of state: the intent is written down, the steps are carried out, the new state is committed.
//!
//! A step that fails takes the ones before it back. A daemon that dies in between leaves its intent open; the next one takes the
//! change back by making everything so as the committed state says. Every step says what shall be and may be repeated.

mod faults;
mod ground;
mod links;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use ringway_network::{Plan, State, Step, Things};

use crate::store::{Intent, Store, StoreError};

pub(crate) use ground::{GroundError, HostGround};
pub(crate) use links::gateway_mac;

/// The store, shared with those who keep leases.
pub(crate) type SharedStore = Arc<Mutex<Store>>;

/// Where steps are carried out: the host, or what tests have in its place.
pub(crate) trait Ground: Send + Sync {
    /// Makes it so. Repeating it changes nothing, nor does removing what is not there.
    fn carry(&self, step: &Step) -> impl Future<Output = Result<(), GroundError>> + Send;
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// A step failed; what was done before is taken back.
    #[error("cannot {step}")]
    Step {
        step: String,
        #[source]
        source: GroundError,
    },
    /// A step failed, and taking back another one, too.
    #[error("cannot {step}: {why}; and what was done before could not be taken back")]
    Torn {
        step: String,
        why: String,
        #[source]
        source: GroundError,
    },
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes the state from `old` to `new`, on the ground and in the store; or leaves it as it was.
pub(crate) async fn change(
    store: &SharedStore,
    ground: &impl Ground,
    old: &State,
    new: &State,
) -> Result<(), ApplyError> {
    let plan = Plan::between(&Things::of(old), &Things::of(new));
    let intent = Intent {
        old: old.clone(),
        new: new.clone(),
    };
    faults::change_begins();
    faults::place();
    with(store, move |store| store.begin(&intent)).await?;
    faults::place();
    if let Err(error) = carry_out(&plan, ground).await {
        // An open intent makes the next start set right what could not be taken back now.
        if !matches!(error, ApplyError::Torn { .. }) {
            with(store, Store::abandon).await?;
        }
        return Err(error);
    }
    let committed = new.clone();
    if let Err(error) = with(store, move |store| store.commit(&committed)).await {
        take_back(&plan.steps, ground).await;
        return Err(error.into());
    }
    faults::place();
    Ok(())
}

/// Makes the ground as the committed state says, whatever it is now, and ends a change that was under way.
pub(crate) async fn reconcile(
    store: &SharedStore,
    ground: &impl Ground,
) -> Result<State, ApplyError> {
    let (state, intent) = with(store, |store| Ok((store.state()?, store.intent()?))).await?;
    let wanted = Things::of(&state);
    if let Some(intent) = &intent {
        let mut stale = Things::of(&intent.new);
        stale
            .links
            .retain(|name, _| !wanted.links.contains_key(name));
        stale
            .switch_ports
            .retain(|name, _| !wanted.switch_ports.contains_key(name));
        stale
            .services
            .retain(|name, _| !wanted.services.contains_key(name));
        if wanted.firewall.is_some() {
            stale.firewall = None;
        }
        for step in &Plan::between(&stale, &Things::default()).steps {
            carry(step, ground).await?;
        }
    }
    for step in &Plan::between(&Things::default(), &wanted).steps {
        carry(step, ground).await?;
    }
    if intent.is_some() {
        with(store, Store::abandon).await?;
    }
    Ok(state)
}

async fn carry_out(plan: &Plan, ground: &impl Ground) -> Result<(), ApplyError> {
    for (index, step) in plan.steps.iter().enumerate() {
        let Err(error) = carry(step, ground).await else {
            continue;
        };
        // The failed one too: it may have done a part.
        let undone = take_back(&plan.steps[..=index], ground).await;
        return Err(match undone {
            None => error,
            Some(source) => ApplyError::Torn {
                step: step.to_string(),
                why: crate::failure::chain(&error),
                source,
            },
        });
    }
    Ok(())
}

/// Takes steps back, the last first, each whatever became of the others; gives the first error.
async fn take_back(steps: &[Step], ground: &impl Ground) -> Option<GroundError> {
    let mut first = None;
    for step in steps.iter().rev() {
        let back = step.clone().back();
        if let Err(error) = ground.carry(&back).await {
            tracing::error!("cannot {back}: {error}");
            first.get_or_insert(error);
        }
    }
    first
}

async fn carry(step: &Step, ground: &impl Ground) -> Result<(), ApplyError> {
    let done = ground.carry(step).await;
    faults::place();
    done.map_err(|source| ApplyError::Step {
        step: step.to_string(),
        source,
    })
}

/// Works on the store in a thread where waiting for the disk holds nobody up.
pub(crate) async fn with<T: Send + 'static>(
    store: &SharedStore,
    work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = Arc::clone(store);
    let task = tokio::task::spawn_blocking(move || {
        work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
    });
    match task.await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
