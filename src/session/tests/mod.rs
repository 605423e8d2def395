//! Sentences for the rules, a reference model, and what compares the two.

mod exhaustive;
mod flock;
mod model;
mod pair;
mod random;
mod rules;
mod scale;
