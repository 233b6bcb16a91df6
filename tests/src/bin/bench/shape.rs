//! The sizes of clusters.

use std::{fmt, str::FromStr};

use anyhow::{Context, Error};

/// The number of Services, the number of endpoints of each, and how often to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
    /// How often each measurement runs: less often if a round takes minutes on an emulated kernel.
    pub(crate) rounds: usize,
    /// Discarded rounds, in which the kernel loads modules and an emulator translates each instruction for the first
    /// time.
    pub(crate) warm_up: usize,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "P1", services: 10_000, endpoints: 2, rounds: 5, warm_up: 1 },
    Shape { name: "P2", services: 5_000, endpoints: 50, rounds: 3, warm_up: 0 },
    Shape { name: "P3", services: 44_125, endpoints: 1, rounds: 3, warm_up: 0 },
    Shape { name: "P4", services: 1, endpoints: 100_000, rounds: 1, warm_up: 0 },
    Shape::DEFAULT,
    Shape { name: "P6", services: 100, endpoints: 10, rounds: 9, warm_up: 2 },
    Shape { name: "P7", services: 5_000, endpoints: 10, rounds: 3, warm_up: 0 },
];

impl Shape {
    pub(crate) const DEFAULT: Self = Self { name: "P5", services: 1_000, endpoints: 10, rounds: 9, warm_up: 2 };

    pub(crate) fn with_services(self, services: u32) -> Self {
        Self { services, ..self }
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let shape = SHAPES.into_iter().find(|shape| shape.name == name);
        let names = SHAPES.map(|shape| shape.name).join(", ");
        shape.with_context(|| format!("there is no shape {name:?}; there are: {names}"))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { name, services, endpoints, .. } = self;
        write!(f, "{name}: {services} Service{} x {endpoints} endpoint{}", plural(*services), plural(*endpoints))
    }
}
