/* The network, in a worker of its own: a frame takes it tens of milliseconds or more, and run beside the page it would
   hold up the controls and the callbacks that tell which frames were missed.

   Takes messages {id, action, values} and answers each, in their order, with {id, value} or {id, error}:
     load    {model: ArrayBuffer, backend: "auto" | "webgpu" | "wasm", threads}  ->  {backend, threads}
     restore {rgba: Uint8ClampedArray, width, height, log2Step}                  ->  {rgba, milliseconds}
   The pixels travel without being copied, in both directions. */

// Sides of what the network sees divide by this, and so the quantiser map has a value for every 16x16 block.
const BLOCK = 16;

// The quotient, rounded to float32, is what Python's float32 division gives: the inputs are the same to the last bit.
const INTENSITY = Float32Array.from({length: 256}, (_, level) => level / 255);

let ort;
let session;
// What is reused from frame to frame, for one size of frames.
let reused;

async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    // A GPU that the browser imitates on the CPU is slower than WebAssembly.
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

async function open(model, backend, threads) {
  // Two builds: the one with WebGPU has twice the bytes, and nothing to offer where there is none.
  ort = await import(`./ort/ort.${backend}.min.mjs`);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(model, {executionProviders: [backend]});
}

async function load({model, backend, threads}) {
  await session?.release();
  session = reused = undefined;
  let used = backend === "auto" ? (await hasGpu() ? "webgpu" : "wasm") : backend;
  try {
    await open(new Uint8Array(model), used, threads);
  } catch (error) {
    if (backend !== "auto" || used === "wasm") throw error;
    console.warn("WebGPU is there but does not take this model:", error);
    used = "wasm";
    await open(new Uint8Array(model), used, threads);
  }
  const names = [...session.inputNames].sort().join(", ");
  const channels = session.inputMetadata.find(input => input.name === "images")?.shape?.[3];
  if (names !== "images, quantiser_map" || channels !== 3) {
    await session.release();
    session = undefined;
    throw new Error(`expected the inputs images, of 3 channels, and quantiser_map; it has ${names}`);
  }
  // Without SharedArrayBuffer the runtime has set it to 1 by itself.
  return {backend: used, threads: used === "wasm" ? ort.env.wasm.numThreads : 1};
}

function prepare(width, height) {
  if (reused?.width === width && reused.height === height) return;
  const columns = Math.ceil(width / BLOCK), rows = Math.ceil(height / BLOCK);
  const images = new Float32Array(rows * BLOCK * columns * BLOCK * 3);
  const quantiserMap = new Float32Array(rows * columns);
  reused = {
    width, height, images, quantiserMap, stride: columns * BLOCK * 3,
    feeds: {
      images: new ort.Tensor("float32", images, [1, rows * BLOCK, columns * BLOCK, 3]),
      quantiser_map: new ort.Tensor("float32", quantiserMap, [1, rows, columns, 1]),
    },
  };
}

/* uint8 RGBA -> float32 RGB in [0, 1]. The last column and row are repeated up to the next multiple of 16: at the right
   and at the bottom, so that the codec's own blocks stay where the network expects them. */
function fill(rgba) {
  const {width, height, images, stride} = reused;
  for (let row = 0, from = 0; row < height; row++) {
    const end = (row + 1) * stride;
    let to = row * stride;
    for (let column = 0; column < width; column++, from += 4, to += 3) {
      images[to] = INTENSITY[rgba[from]];
      images[to + 1] = INTENSITY[rgba[from + 1]];
      images[to + 2] = INTENSITY[rgba[from + 2]];
    }
    for (; to < end; to++) images[to] = images[to - 3];
  }
  for (let to = height * stride; to < images.length; to += stride) images.copyWithin(to, to - stride, to);
}

/* float32 RGB, not clipped -> uint8 RGBA, over the pixels that came. A Uint8ClampedArray clips and rounds by itself;
   a Uint8Array would wrap what lies outside [0, 255] around, and cut off the fraction. */
function take(restored, rgba) {
  const {width, height, stride} = reused;
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0, from = row * stride; column < width; column++, from += 3, to += 4) {
      rgba[to] = 255 * restored[from];
      rgba[to + 1] = 255 * restored[from + 1];
      rgba[to + 2] = 255 * restored[from + 2];
    }
  }
}

async function restore({rgba, width, height, log2Step}) {
  if (!session) throw new Error("no network is loaded");
  if (rgba.length !== 4 * width * height) throw new Error(`expected ${width} x ${height} pixels of RGBA`);
  prepare(width, height);
  fill(rgba);
  reused.quantiserMap.fill(log2Step);
  const start = performance.now();
  const output = (await session.run(reused.feeds))[session.outputNames[0]];
  const milliseconds = performance.now() - start;
  if (output.data.length !== reused.images.length) throw new Error("the network changes the size of its images");
  take(output.data, rgba);
  output.dispose();
  return {rgba, milliseconds};
}

const ACTIONS = {load, restore};
// One after the other: a second frame must not be written over the first one's while the network reads it.
let before = Promise.resolve();

addEventListener("message", ({data: {id, action, values}}) => {
  before = before.then(() => ACTIONS[action](values)).then(
    value => postMessage({id, value}, value.rgba ? [value.rgba.buffer] : []),
    error => postMessage({id, error: String(error?.message ?? error)}),
  );
});
