//! Budgets as they are typed.

use secateur_run::scene::BudgetFile;

/// A budget of the command line, which becomes a task: `macs=0.5` is a share of the original, `macs=20000000` a number,
/// `0.5` a share of the MACs; `macs=0.5,params=0.4` are bounds that hold at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BudgetArg(pub(crate) BudgetFile);

pub(crate) fn budget(text: &str) -> Result<BudgetArg, String> {
    let bounds: Vec<(&str, BudgetFile)> = text.split(',').map(bound).collect::<Result<_, _>>()?;
    let mut kinds: Vec<&str> = bounds.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    if let Some(pair) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("it bounds {} twice; for two tasks, give --budget twice", pair[0]));
    }
    let mut bounds: Vec<BudgetFile> = bounds.into_iter().map(|(_, bound)| bound).collect();
    Ok(BudgetArg(if bounds.len() == 1 { bounds.remove(0) } else { BudgetFile::Budget(bounds) }))
}

/// A bound, and the kind of cost that it is on.
fn bound(text: &str) -> Result<(&str, BudgetFile), String> {
    let expected = "expected macs, params or activation_bytes, `=`, and a share in (0, 1] or a whole number above 1 (0.5 \
                    alone is macs=0.5), several that are to hold at once with commas between: macs=0.5,params=0.4";
    let (kind, bound) = text.split_once('=').unwrap_or(("macs", text));
    let max = bound.trim().parse::<u64>().ok().filter(|&max| max > 1 && text.contains('='));
    let ratio = match max {
        Some(_) => None,
        None => Some(bound.trim().parse::<f64>().ok().filter(|r| *r > 0.0 && *r <= 1.0).ok_or(expected)?),
    };
    let kind = kind.trim();
    Ok((
        kind,
        match kind {
            "macs" => BudgetFile::Macs { ratio, max },
            "params" => BudgetFile::Params { ratio, max },
            "activation_bytes" => BudgetFile::ActivationBytes { ratio, max },
            _ => return Err(expected.to_owned()),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_shares_or_numbers() {
        let ratio = |r| Ok(BudgetArg(BudgetFile::Macs { ratio: Some(r), max: None }));
        assert_eq!((budget("macs=0.5"), budget("macs=1"), budget(" macs = 1.0")), (ratio(0.5), ratio(1.0), ratio(1.0)));
        assert_eq!((budget("0.5"), budget("1")), (ratio(0.5), ratio(1.0)));
        let max = |n| Ok(BudgetArg(BudgetFile::Params { ratio: None, max: Some(n) }));
        assert_eq!((budget("params=2"), budget("params=120000")), (max(2), max(120_000)));
        let bad = [
            "macs",
            "macs=",
            "macs=0",
            "macs=1.5",
            "macs=-1",
            "macs=nan",
            "flops=0.5",
            "macs=2.5e3",
            "",
            "2",
            "120000",
        ];
        for bad in bad.into_iter().chain(["0.5,", ",", "macs=0.5,flops=0.5", "macs=0.5;params=0.4"]) {
            assert!(budget(bad).unwrap_err().contains("expected macs, params or activation_bytes"), "{bad}");
        }
    }

    #[test]
    fn bounds_with_commas_between_hold_at_once() {
        let joint = BudgetArg(BudgetFile::Budget(vec![
            BudgetFile::Macs { ratio: Some(0.5), max: None },
            BudgetFile::Params { ratio: None, max: Some(120_000) },
        ]));
        assert_eq!(budget("macs=0.5,params=120000"), Ok(joint.clone()));
        assert_eq!(budget("0.5, params = 120000"), Ok(joint));
        assert!(budget("0.5,macs=0.4").unwrap_err().contains("it bounds macs twice"));
    }
}
