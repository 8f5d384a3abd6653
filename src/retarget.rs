//! `retarget`: other budgets, answered by the policy of an earlier run.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use secateur_run::{RunSpec, retarget};
use secateur_scene::to_ron;

use crate::budget_argument::{BudgetArg, budget};
use crate::closing_table::closing_table;
use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::options::{HistoryArgs, MemoryArgs, RootArgs, ThreadArgs};
use crate::progress::RunProgress;
use crate::screen::show;
use crate::{Failure, report_command, screen};

pub(crate) const RETARGET_EXAMPLES: &str = "\
Examples:
  secateur retarget runs/first --budget 0.42
  secateur retarget runs/first --budget 0.4 --budget params=0.6 --candidates 32 --out runs/more
  secateur retarget runs/first --budget 0.42 --set finalists=1 --set refit_in_pairs=false      in seconds
  secateur retarget runs/first --budget 0.5 --set 'networks[0].file=\"resnet56\"'

The policy that the run learned acts, and learns nothing any more: its own answer, and as many more as --candidates says,
sampled around it. The best is refitted as the run's scene says, written and certified. A budget between two of the run's begins
between them. Agents whose policy can do this: mtacp, impala and ppo.";

#[derive(Args, Debug)]
pub(crate) struct RetargetArgs {
    /// Directory of a run that came to its end
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// What the network may cost, as `plan` takes it; may be repeated
    #[arg(long, value_name = "COST=BOUND,…", value_parser = budget, required = true)]
    budget: Vec<BudgetArg>,
    /// Candidates for each budget, the policy's own one among them
    #[arg(long, value_name = "N", default_value = "8")]
    candidates: NonZeroUsize,
    /// Run directory; must be new or empty [default: RUN-retargeted]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    roots: RootArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    history: HistoryArgs,
    /// Change the run's scene: 'networks[0].file="other"'; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Print summary.json instead of the table
    #[arg(long)]
    json: bool,
    /// Print nothing but the results
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn retarget_run(arguments: &RetargetArgs, extensions: &Extensions) -> Result<(), Failure> {
    let start = Instant::now();
    let mut progress = RunProgress::new(arguments.quiet, Interrupt::install()?);
    let budgets: Vec<String> = arguments.budget.iter().map(|budget| to_ron(&budget.0)).collect();
    let ours = [format!("budgets=[{}]", budgets.join(", ")), format!("walks_per_task={}", arguments.candidates)];
    let spec = RunSpec {
        sets: ours.into_iter().chain(arguments.set.iter().cloned()).collect(),
        out: arguments.out.clone(),
        data_root: arguments.roots.data_root.clone(),
        model_root: arguments.roots.model_root.clone(),
        threads: arguments.threads.threads,
        memory: arguments.memory.memory,
        history: arguments.history.history.clone(),
        ..RunSpec::new(&arguments.run)
    };
    let result = retarget(&arguments.run, &extensions.spec(spec), &extensions.plugins, &mut progress)?;
    show(&result.summary, arguments.json, |_| closing_table(&result))?;
    report_command::write_beside(&result.directory, arguments.quiet);
    screen::note(format_args!("answered in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}
