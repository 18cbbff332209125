/* Plays a video, restores the frames that the network keeps up with, and shows each beside what it was made from. */

const at = id => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

const video = at("video");
const capture = document.createElement("canvas");
// It is read at every frame: kept in main memory, it is not fetched from the GPU each time.
const capturePen = capture.getContext("2d", {alpha: false, willReadFrequently: true});
const compressedPen = at("compressed").getContext("2d", {alpha: false});
const restoredPen = at("restored").getContext("2d", {alpha: false});

// So many frames of nothing but black are no coincidence: see watchBlack.
const BLACK_FRAMES = 25;

// What runs it: {backend, threads}.
let network;
let isBusy = false;
// Frames: before counting began, on the screen since then, and given to the network of those.
let skipped, presented, taken;
// The frame on the screen has not been given to the network, or not at the quantiser step that is set now.
let isNew = false, isChanged = false;
let blackFrames = 0;
let finished = [];


// The worker.

const worker = new Worker(new URL("network.js", import.meta.url), {type: "module"});
const waiting = new Map();
let asked = 0;

worker.addEventListener("message", ({data: {id, value, error}}) => {
  const {resolve, reject} = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
});
worker.addEventListener("error", ({message}) => {
  say("model", `The network's worker does not start (${message || "not found"}).`);
});

function ask(action, values, transfer) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, {resolve, reject});
    worker.postMessage({id: asked, action, values}, transfer);
  });
}

/* Restores one frame.
     rgba      Uint8ClampedArray of width * height * 4. It is handed over: the caller's is empty afterwards.
     log2Step  how strongly it was compressed: log2 of the quantiser step, the same in every block.
   Returns the same array with the restored pixels; alpha stays as it was. */
async function restoreFrame(rgba, width, height, log2Step) {
  const {rgba: restored, milliseconds} = await ask("restore", {rgba, width, height, log2Step}, [rgba.buffer]);
  at("milliseconds").textContent = milliseconds.toFixed(milliseconds < 10 ? 1 : 0);
  return restored;
}
window.restoreFrame = restoreFrame;


// Model and video.

// What is wrong with the model and with the video: news of one does not hide the other's.
const troubles = {model: "", video: ""};

function say(about, trouble) {
  troubles[about] = trouble;
  at("trouble").textContent = Object.values(troubles).filter(Boolean).join(" ");
  at("trouble").hidden = !at("trouble").textContent;
}

const oneLine = error => String(error.message ?? error).split("\n")[0].slice(0, 300).replace(/\.$/, "");

async function readModel(source) {
  if (source instanceof Blob) return source.arrayBuffer();
  const response = await fetch(source);
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return response.arrayBuffer();
}

async function openModel(source, name) {
  network = undefined;
  say("model", "");
  at("backend").textContent = "loading";
  try {
    const model = await readModel(source);
    const backend = parameters.get("backend") ?? "auto";
    // More than four share too little work, and the decoder needs a core as well.
    const threads = Number(parameters.get("threads")) || Math.min(4, navigator.hardwareConcurrency || 1);
    network = await ask("load", {model, backend, threads}, [model]);
    at("backend").textContent = network.backend === "wasm"
      ? `wasm, ${network.threads} ${network.threads === 1 ? "thread" : "threads"}` : network.backend;
    startCounting();
    restoreShown();
  } catch (error) {
    at("backend").textContent = "none";
    say("model", `The model ${name} cannot be loaded: ${oneLine(error)}.`);
  }
  hint();
}

function openVideo(source, name) {
  say("video", "");
  startCounting();
  if (video.src.startsWith("blob:")) URL.revokeObjectURL(video.src);
  at("frame").classList.remove("restoring");
  video.dataset.name = name;
  video.src = source instanceof Blob ? URL.createObjectURL(source) : source;
  // Refused without a touch or a key where even silent videos may not start by themselves; the button is there.
  video.play().catch(() => {});
  hint();
}

video.addEventListener("error", () => {
  const reason = video.error.message ? oneLine(video.error) : "unknown codec";
  say("video", `The browser cannot play the video ${video.dataset.name}: ${reason}.`);
});
video.addEventListener("loadedmetadata", () => {
  if (!video.videoWidth) say("video", `The browser finds no pictures in ${video.dataset.name}.`);
  at("size").textContent = `${video.videoWidth} × ${video.videoHeight}`;
  fit();
});

function hint() {
  const hasModel = network || at("backend").textContent === "loading";
  const missing = [!hasModel && "a model", !video.src && "a video"].filter(Boolean);
  at("hint").textContent = missing.length ? `Choose ${missing.join(" and ")} below.` : "";
}


// Every frame.

function startCounting() {
  skipped = undefined;
  presented = taken = blackFrames = 0;
  isNew = false;
  finished = [];
  at("dropped").textContent = "0";
  at("fps").textContent = "–";
}

function onFrame(now, {presentedFrames}) {
  video.requestVideoFrameCallback(onFrame);
  if (!network) return;
  // Not the number of calls: a page that is late is not called for every frame that was on the screen.
  skipped ??= presentedFrames - 1;
  presented = presentedFrames - skipped;
  isNew = true;
  // Frames are never queued, or each would be shown later than the one before. What the network finds when it is done
  // is the newest one, and those between are dropped.
  if (!isBusy) restoreShown();
  at("dropped").textContent = presented - taken - (isNew ? 1 : 0);
}

// TVs show video on a plane of its own, behind the page. Some give a canvas nothing of it but black.
function watchBlack(rgba) {
  const before = blackFrames;
  blackFrames = isBlack(rgba) ? before + 1 : 0;
  if (blackFrames === BLACK_FRAMES) {
    say("video", "The page sees only black: this device may not let it read the video.");
  } else if (before >= BLACK_FRAMES && !blackFrames) {
    say("video", "");
  }
}

function isBlack(rgba) {
  for (let index = 0; index < rgba.length; index += 4 * 61) {
    if (rgba[index] | rgba[index + 1] | rgba[index + 2]) return false;
  }
  return true;
}

async function restoreShown() {
  isChanged = isBusy;
  if (isBusy || !network || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || !video.videoWidth) return;
  isBusy = true;
  if (isNew) taken++;
  isNew = false;
  const {videoWidth: width, videoHeight: height} = video;
  try {
    resize(capture, width, height);
    capturePen.drawImage(video, 0, 0, width, height);
    const {data} = capturePen.getImageData(0, 0, width, height);
    watchBlack(data);
    const restored = await restoreFrame(data, width, height, Number(at("step").value));
    resize(at("compressed"), width, height);
    resize(at("restored"), width, height);
    // Both at once, so that they always are of one frame.
    compressedPen.drawImage(capture, 0, 0);
    restoredPen.putImageData(new ImageData(restored, width, height), 0, 0);
    at("frame").classList.add("restoring");
    count();
  } catch (error) {
    network = undefined;
    at("backend").textContent = "stopped";
    say("model", `The network cannot restore ${width} × ${height}: ${oneLine(error)}.`);
  } finally {
    isBusy = false;
  }
  if (isNew || isChanged) restoreShown();
}

function resize(canvas, width, height) {
  // Setting a size clears the canvas, even to the same one.
  if (canvas.width === width && canvas.height === height) return;
  canvas.width = width;
  canvas.height = height;
}

// What was finished in the last seconds; at least two, however slow it is.
function count() {
  const now = performance.now();
  if (video.paused) return;
  finished.push(now);
  while (finished.length > 2 && finished[0] < now - 3000) finished.shift();
  if (finished.length < 2) return;
  const fps = 1000 * (finished.length - 1) / (now - finished[0]);
  at("fps").textContent = fps.toFixed(fps < 10 ? 1 : 0);
}


// Controls.

let split = 50;

function moveSplit(percent) {
  split = Math.min(100, Math.max(0, percent));
  at("restored").style.clipPath = `inset(0 0 0 ${split}%)`;
  at("handle").style.left = `${split}%`;
  at("frame").setAttribute("aria-valuenow", Math.round(split));
  // A label goes where its side has no room for it.
  at("frame").classList.toggle("left-hidden", split < 15);
  at("frame").classList.toggle("right-hidden", split > 85);
}

function setStep(log2Step) {
  at("step").value = log2Step;
  const value = Number(at("step").value);
  const qp = Math.round(6 * value + 4);
  at("step-value").innerHTML = `2<sup>${value.toFixed(1)}</sup>${qp >= 0 && qp <= 51 ? `, as H.264 at QP ${qp}` : ""}`;
  if (video.paused) restoreShown();
}

function togglePlay() {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

// As large as the stage allows, in the video's shape.
function fit() {
  const {clientWidth, clientHeight} = at("stage");
  const shape = video.videoWidth / video.videoHeight || 16 / 9;
  const width = Math.floor(Math.min(clientWidth, clientHeight * shape));
  at("frame").style.width = `${width}px`;
  at("frame").style.height = `${Math.floor(width / shape)}px`;
}

// What a TV's remote has: four arrows and OK.
const KEYS = {
  ArrowLeft: () => moveSplit(split - 2),
  ArrowRight: () => moveSplit(split + 2),
  ArrowUp: () => setStep(Number(at("step").value) + 0.5),
  ArrowDown: () => setStep(Number(at("step").value) - 0.5),
  Home: () => moveSplit(0),
  End: () => moveSplit(100),
  Enter: togglePlay,
  " ": togglePlay,
};
addEventListener("keydown", event => {
  if (!KEYS[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
  // Those have keys of their own.
  if (event.target.closest("input, button")) return;
  event.preventDefault();
  KEYS[event.key]();
});

function drag(event) {
  const {left, width} = at("frame").getBoundingClientRect();
  moveSplit(100 * (event.clientX - left) / width);
}
at("frame").addEventListener("pointerdown", event => {
  at("frame").setPointerCapture(event.pointerId);
  drag(event);
});
at("frame").addEventListener("pointermove", event => {
  if (at("frame").hasPointerCapture(event.pointerId)) drag(event);
});

at("step").addEventListener("input", () => setStep(at("step").value));
at("play").addEventListener("click", togglePlay);
for (const name of ["play", "pause"]) {
  video.addEventListener(name, () => {
    at("play").textContent = video.paused ? "Play" : "Pause";
    finished = [];
  });
}
for (const [id, open] of [["model-file", openModel], ["video-file", openVideo]]) {
  at(id).addEventListener("change", ({target: {files: [file]}}) => file && open(file, file.name));
}
new ResizeObserver(fit).observe(at("stage"));

moveSplit(split);
setStep(parameters.get("step") ?? at("step").value);
at("frame").focus();
if (video.requestVideoFrameCallback) {
  video.requestVideoFrameCallback(onFrame);
  const baseName = address => address.split(/[?#]/)[0].split("/").pop();
  if (parameters.get("model")) openModel(parameters.get("model"), baseName(parameters.get("model")));
  if (parameters.get("video")) openVideo(parameters.get("video"), baseName(parameters.get("video")));
  hint();
} else {
  at("hint").textContent = "";
  say("video", "This browser is too old: it does not tell which frame of a video is on the screen.");
}
