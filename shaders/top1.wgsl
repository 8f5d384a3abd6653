// How many images a candidate gets right, and how far its class probabilities are from the original network's: only these
// numbers leave the card. `judge` looks at one image of one candidate, `tally` adds up the images of a chunk to those before, in
// order, so that sums are the same however candidates and images are cut.

struct Verdict {
    // 1 right, 0 wrong, NOT_FINITE where a logit is NaN or infinite.
    verdict: u32,
    // Kullback-Leibler divergence from the original's probabilities, nats.
    divergence: f32,
}

// Mirrored by `Tally` in crates/gpu/src/layout.rs.
struct Tally {
    n_correct: u32,
    // Number of the first image whose logits are not finite; NONE if there is none.
    first_not_finite: u32,
    // Sum over whole blocks of 32 images, and over the block that is not full yet: a long sum of small numbers would lose digits.
    divergence: f32,
    block: f32,
}

const NOT_FINITE: u32 = 2u;
const NONE: u32 = 0xffffffffu;

@group(1) @binding(3) var<storage, read> labels: array<u32>;
// Logarithms of the original's class probabilities, `[image][class]`.
@group(1) @binding(4) var<storage, read> log_probabilities: array<f32>;
@group(1) @binding(5) var<storage, read_write> verdicts: array<Verdict>;
@group(1) @binding(6) var<storage, read_write> tallies: array<Tally>;

// The `i`-th logit of an image: outputs with rows and columns are `[h, w, c]`.
fn logit(base: u32, n_channels: u32, i: u32) -> f32 {
    let pixel = i / n_channels;
    let c = i - pixel * n_channels;
    return input[base + c / 4u * step_.out_h * step_.out_w + pixel][c % 4u];
}

@compute @workgroup_size(64, 1, 1)
fn judge(@builtin(global_invocation_id) id: vec3<u32>) {
    let image = id.x;
    if image >= chunk.n_images {
        return;
    }
    let n_channels = candidates[id.z].n_out;
    let n_pixels = step_.out_h * step_.out_w;
    let n = n_pixels * n_channels;
    let base = input_base(id.z) + image * n_pixels * quads(n_channels);
    var best = 0u;
    var most = logit(base, n_channels, 0u);
    var is_finite = true;
    for (var i = 0u; i < n; i++) {
        let x = logit(base, n_channels, i);
        is_finite = is_finite && (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
        if x > most {
            most = x;
            best = i;
        }
    }
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        sum += exp(logit(base, n_channels, i) - most);
    }
    let log_sum = most + log(sum);
    let start = (chunk.first_image + image) * n;
    var divergence = 0.0;
    // Without the original's probabilities, the step says so.
    for (var i = 0u; i < select(0u, n, step_.compares != 0u); i++) {
        let log_p = log_probabilities[start + i];
        divergence += exp(log_p) * (log_p - (logit(base, n_channels, i) - log_sum));
    }
    let right = u32(best == labels[chunk.first_image + image]);
    verdicts[id.z * step_.out_stride + image] =
        Verdict(select(NOT_FINITE, right, is_finite), select(0.0, max(divergence, 0.0), is_finite));
}

// Images of a block, and blocks that a workgroup adds up at a time.
const BLOCK: u32 = 32u;
const ADDERS: u32 = 64u;

var<workgroup> parts: array<Tally, ADDERS>;

// The images of the chunk that belong to a block, in order; `begun` is what earlier chunks left of the block's sum.
fn part(candidate: u32, block: u32, begun: f32) -> Tally {
    let begin = max(block * BLOCK, chunk.number);
    let end = min((block + 1u) * BLOCK, chunk.number + chunk.n_images);
    var sum = Tally(0u, NONE, 0.0, begun);
    for (var number = begin; number < end; number++) {
        let v = verdicts[candidate * step_.out_stride + number - chunk.number];
        sum.n_correct += u32(v.verdict == 1u);
        if v.verdict == NOT_FINITE {
            sum.first_not_finite = min(sum.first_not_finite, number);
        }
        sum.block += v.divergence;
    }
    return sum;
}

// Blocks are summed side by side, and added to the total one after the other.
@compute @workgroup_size(ADDERS, 1, 1)
fn tally(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    var total = Tally(0u, NONE, 0.0, 0.0);
    if chunk.number > 0u {
        total = tallies[group.z];
    }
    let end = (chunk.number + chunk.n_images + BLOCK - 1u) / BLOCK;
    for (var first = chunk.number / BLOCK; first < end; first += ADDERS) {
        let block = first + local.x;
        workgroupBarrier();
        if block < end {
            // Only the chunk's first block may have begun before it.
            parts[local.x] = part(group.z, block, select(0.0, total.block, block * BLOCK < chunk.number));
        }
        workgroupBarrier();
        for (var i = 0u; i < min(ADDERS, end - first); i++) {
            if (first + i) * BLOCK >= chunk.number {
                total.divergence += total.block;
            }
            total.block = parts[i].block;
            total.n_correct += parts[i].n_correct;
            total.first_not_finite = min(total.first_not_finite, parts[i].first_not_finite);
        }
    }
    if local.x == 0u {
        tallies[group.z] = total;
    }
}
