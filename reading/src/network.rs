//! One neural network, run on one thread.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cpu_time::ThreadTime;
use rten::{Model, RunOptions, ThreadPool};
use rten_tensor::{AsView, Layout, NdTensor};

/// A network of one input and one output.
pub(crate) struct Network(Model);

/// What kept a network from being loaded or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("cannot load: {0}")]
    Load(#[from] rten::LoadError),
    #[error("cannot run: {0}")]
    Run(#[from] rten::RunError),
    #[error("output of another kind than expected")]
    Output,
}

/// A network's output: its last two sides, and the values row by row.
pub(crate) struct Output {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

/// A picture's size by a factor, as networks take it: their strides ask for multiples of 32.
pub(crate) fn input_size(width: u32, height: u32, factor: f32) -> (u32, u32) {
    let side = |pixels: u32| ((pixels as f32 * factor / 32.0).round() as u32).max(1) * 32;
    (side(width), side(height))
}

impl Network {
    pub fn load(onnx: &'static [u8]) -> Result<Self, NetworkError> {
        Ok(Self(Model::load_static_slice(onnx)?))
    }

    /// Runs one picture of one or three planes, each of `rows` x `columns`.
    pub fn run(
        &self,
        planes: Vec<f32>,
        rows: usize,
        columns: usize,
        thread: &Thread,
    ) -> Result<Output, NetworkError> {
        let input = NdTensor::from_data([1, planes.len() / (rows * columns), rows, columns], planes);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&thread.0)));
        let output = self.0.run_one(input.into(), Some(options))?;
        let output: rten_tensor::Tensor<f32> = output.try_into().map_err(|_| NetworkError::Output)?;
        let [.., rows, columns] = *output.shape() else {
            return Err(NetworkError::Output);
        };
        Ok(Output { rows, columns, values: output.to_vec() })
    }
}

/// The one thread that a read runs on.
pub(crate) struct Thread(Arc<ThreadPool>);

/// Threads that are kept between reads: as many as reads ever ran at once. A pool shared by all would queue one read behind
/// another, and the library's own default takes every core for one photo.
#[derive(Default)]
pub(crate) struct Threads(Mutex<Vec<Arc<ThreadPool>>>);

impl Threads {
    /// Runs `work` on a thread of its own; with the CPU time that it took there, where the system reports it.
    pub fn with<R: Send>(&self, work: impl FnOnce(&Thread) -> R + Send) -> (R, Option<Duration>) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let thread = Thread(kept.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1))));
        let result = thread.0.run(|| {
            let before = ThreadTime::try_now().ok();
            let done = work(&thread);
            (done, before.and_then(|before| before.try_elapsed().ok()))
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread.0);
        result
    }
}
