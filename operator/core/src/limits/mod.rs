//! What a change is allowed: class table, the rollout's own limits, and their join into a plan.
//!
//! The tighter of two limits always wins, so no order of joining can loosen one.

mod classes;
mod compose;
mod plan;
mod schedule;
pub mod table;
mod tighten;
mod validate;

pub use classes::{class_table, evidence_rows, order_problem, row, table_problem};
pub use compose::{clamped, sources};
pub use plan::{canary_service, default_guards, draft, make_plan, return_plan, stable_service};
pub use schedule::{hold_seconds, join, pods_for, problem as schedule_problem, step_seconds};
pub use tighten::{Progress, count_more, loosened, tighten};
pub use validate::{config_problem, problems, query_problem};
