"""The results of `check` as Markdown; of whatever part of them there is."""

N_DISPATCHES = 15


def markdown(found):
    parts = [head(found), steps(found), tests(found), rates(found)]
    parts += [dispatches(network, measured) for network, measured in found.get("bench_eval", {}).items()]
    parts += [kernels(found), ways(found), runs(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def rows(header, body):
    """A table: the first column to the left, the others to the right."""
    align = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [header, align, *body])


def number(value, digits=2):
    return "" if value is None else f"{value:,.{digits}f}"


def percent(value, digits=1):
    return "" if value is None else f"{100 * value:.{digits}f} %"


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def head(found):
    manifest, machine, vulkan = found["manifest"], found.get("machine", {}), found.get("vulkan", {})
    card = machine.get("card", {})
    chosen = next((a for a in vulkan.get("adapters", []) if a.get("chosen")), {})
    lines = [f"# Secateur on {card.get('name') or chosen.get('name', 'no card')}", ""]
    lines += [f"* commit {manifest['commit'][:12]}{'' if manifest['clean'] else ' with changes that are not committed'}, packed "
              f"{manifest['date']}, {manifest['mode']} mode; measured {found['started']}, {found.get('elapsed_s', 0):.0f} s in all"]
    if card:
        lines.append("* card: " + ", ".join(f"{key} {value}" for key, value in card.items()))
    if chosen:
        lines.append(f"* adapter: {chosen['name']} ({chosen['kind']}, {chosen['backend']}, {chosen['driver']}), found through: "
                     f"{vulkan.get('how')}; libraries brought: {', '.join(vulkan['libraries_brought']) or 'none'}")
    lines.append(f"* {machine.get('cpus', '?')} CPUs, Python {machine.get('python')}, PyTorch {machine.get('torch') or 'none'}")
    return "\n".join(lines)


def steps(found):
    body = [[row["step"], row["status"], number(row.get("seconds"), 1), row["limit_s"], row.get("why", "").replace("|", "/")]
            for row in found["steps"]]
    return "## Steps\n\n" + rows(["step", "status", "s", "limit s", "why"], body) if body else ""


def tests(found):
    body, notes = [], []
    for name, result in found.get("tests", {}).items():
        body.append([name, result["passed"], result["failed"], len(result["said_to_be_skipped"]), "yes" if result["finished"] else "NO"])
        notes += [f"* failed: `{test}`" for test in result["failed_names"]]
        notes += [f"* {line}" for line in result["differences"] + result["said_to_be_skipped"]]
    table = rows(["tests", "passed", "failed", "skipped", "came to their end"], body)
    return "## Tests of the shaders\n\n" + "\n\n".join([table, *(["\n".join(notes)] if notes else [])]) if body else ""


def rates(found):
    body = []
    for network, ours in found.get("bench_eval", {}).items():
        theirs = found.get("torch", {}).get(network, {})
        masked, dense = theirs.get("masked_candidates_per_s"), theirs.get("dense_images_per_s")
        body.append([f"{network}, {ours['candidates']} x {ours['images']}", number(ours["candidates_per_s"]),
                     number(ours["candidates_per_s_by_mask"]), number(masked), ratio(ours["candidates_per_s"], masked),
                     ratio(ours["candidates_per_s_by_mask"], masked), number(ours["dense_images_per_s"], 0), number(dense, 0),
                     ratio(ours["dense_images_per_s"], dense), number(ours["gflops"], 0), percent(ours.get("peak_share"))])
    header = ["network, candidates x images", "candidates/s, own weights", "by mask", "PyTorch masked", "own / PyTorch",
              "mask / PyTorch", "dense images/s", "PyTorch dense", "dense / PyTorch", "GFLOP/s", "of peak"]
    note = "PyTorch: eager, fp32, TF32 off, candidates one after another, on this card in the same call."
    return f"## Rates\n\n{rows(header, body)}\n\n{note}" if body else ""


def dispatches(network, measured):
    """The slowest dispatches of a batch of candidates."""
    found = measured.get("dispatches")
    if not found or not found["rows"]:
        return ""
    total = sum(row["seconds"] for row in found["rows"])
    slowest = sorted(found["rows"], key=lambda row: -row["seconds"])[:N_DISPATCHES]
    body = [[row["layer"], row["kernel"], number(1e6 * row["seconds"], 1), percent(row["seconds"] / total), number(row["gflops"], 0),
             percent(row.get("peak_share"))] for row in slowest]
    title = (f"## Slowest dispatches of {network}: {found['candidates']} candidates x {found['images']} images, "
             f"{len(found['rows'])} dispatches, {1e3 * total:.2f} ms in all")
    return f"{title}\n\n" + rows(["layer", "kernel", "us", "of all", "GFLOP/s", "of peak"], body)


def way(row):
    """How a convolution was computed."""
    return f"{row['variant']}, tile {row['tile']}, block {row['block']}"


def speed(row):
    """Time of a candidate and an image: what fits one dispatch may differ with the way."""
    return row["seconds"] / max(1, row["candidates"] * row["images"])


def kernels(found):
    """Every layer shape's best way beside the default's."""
    layers = {}
    for row in found.get("bench_kernels", {}).get("rows", []):
        layers.setdefault(row["layer"], []).append(row)
    body = []
    for layer, ways in layers.items():
        best, default = min(ways, key=speed), next((row for row in ways if row["is_default"]), None)
        body.append([layer, best["kernel"], f"{best['candidates']} x {best['images']}", len(ways), way(best),
                     number(1e6 * best["seconds"], 1), percent(best.get("peak_share"))])
        if default:
            body[-1] += [way(default), number(1e6 * default["seconds"], 1), percent(default.get("peak_share")),
                         f"{speed(default) / speed(best):.2f}"]
    header = ["layer", "kernel", "work", "tried", "best", "us", "of peak", "default", "us", "of peak", "gain"]
    return "## Layer shapes\n\n" + rows(header, body) if body else ""


def ways(found):
    body = [[row["way"], number(row["candidates_per_s"]), number(row["candidates_per_s_by_mask"]),
             number(row["dense_images_per_s"], 0), number(row["first_s"], 3), percent(row.get("peak_share"))]
            for row in found.get("ways", [])]
    if not body:
        return ""
    first = found["ways"][0]
    title = f"## Ways to score {first['network']}: {first['candidates']} candidates x {first['images']} images"
    header = ["way", "candidates/s, own weights", "by mask", "dense images/s", "first batch s", "of peak"]
    return f"{title}\n\n{rows(header, body)}"


def runs(found):
    body = []
    for scene, devices in found.get("runs", {}).items():
        for device, run in devices.items():
            body.append([scene, device, run["device"], run["walks"], number(run["walks_per_s"]), number(run["wall_s"], 1),
                         "; ".join(run["warnings"])])
    if not body:
        return ""
    parts = ["## Runs", rows(["scene", "asked for", "ran on", "walks", "walks/s", "wall s", "warnings"], body)]
    winners = [line for scene, devices in found["runs"].items() for line in same(scene, devices)]
    if winners:
        header = ["task", "same widths", "same bytes", "test % on the card", "on the CPU", "reward % on the card", "on the CPU"]
        parts.append(rows(header, winners))
    return "\n\n".join(parts)


def same(scene, devices):
    """Whether the card's winners are the processor's."""
    if not {"gpu", "cpu"} <= devices.keys():
        return
    for task, card in devices["gpu"]["winners"].items():
        cpu = devices["cpu"]["winners"][task]
        yes = lambda key: "yes" if card[key] == cpu[key] else "NO"
        accuracies = [number(100 * run[key]) for key in ("test_accuracy", "reward_accuracy") for run in (card, cpu)]
        yield [f"{scene}: {task}", yes("kept"), yes("sha256"), *accuracies]
