// Two versions of a picture with a line between them that is dragged, and a zoom.
// item: {name, width, height, versions: {name: address}}; the page defines --accent.
function viewer(item) {
  const names = Object.keys(item.versions);
  const root = document.createElement("div"); root.className = "viewer";
  const bar = document.createElement("div"); bar.className = "bar";
  const title = document.createElement("strong"); title.textContent = item.name; bar.append(title);
  const chosen = [names[0], names[1] || names[0]];
  const stage = document.createElement("div"); stage.className = "stage"; stage.tabIndex = 0;
  stage.setAttribute("role", "group"); stage.setAttribute("aria-label", item.name + ", before and after");
  const images = ["left", "right"].map(side => { const image = document.createElement("img"); image.className = side; image.draggable = false; stage.append(image); return image; });
  const handle = document.createElement("div"); handle.className = "handle"; stage.append(handle);
  const tags = ["l", "r"].map(side => { const tag = document.createElement("span"); tag.className = "tag " + side; stage.append(tag); return tag; });
  const state = { split: .5, zoom: 1, x: 0, y: 0 };
  ["left", "right"].forEach((side, index) => {
    const label = document.createElement("label"); label.textContent = side + " ";
    const select = document.createElement("select");
    names.forEach(name => { const option = document.createElement("option"); option.textContent = name; select.append(option); });
    select.value = chosen[index];
    select.onchange = () => { chosen[index] = select.value; draw(); };
    label.append(select); bar.append(label);
  });
  const reset = document.createElement("button"); reset.textContent = "reset"; reset.onclick = () => { Object.assign(state, { zoom: 1, x: 0, y: 0 }); draw(); }; bar.append(reset);
  const scale = document.createElement("span"); bar.append(scale);
  root.append(bar, stage);
  stage.style.width = item.width + "px"; stage.style.aspectRatio = item.width + " / " + item.height;
  const fit = () => stage.clientWidth / item.width;
  function draw() {
    const size = stage.getBoundingClientRect(), factor = fit() * state.zoom;
    state.x = Math.min(0, Math.max(size.width - item.width * factor, state.x));
    state.y = Math.min(0, Math.max(size.height - item.height * factor, state.y));
    images.forEach((image, index) => {
      if (image.dataset.name !== chosen[index]) { image.src = item.versions[chosen[index]]; image.alt = chosen[index]; image.dataset.name = chosen[index]; }
      image.style.transform = `translate(${state.x}px, ${state.y}px) scale(${factor})`;
      tags[index].textContent = chosen[index];
    });
    const inside = (state.split * size.width - state.x) / factor;
    images[1].style.setProperty("--split", Math.max(0, Math.min(item.width, inside)) + "px");
    handle.style.left = 100 * state.split + "%";
    // A finger that moves up or down scrolls the page, until there is a larger picture to move.
    stage.style.touchAction = state.zoom === 1 ? "pan-y" : "none";
    scale.textContent = Math.round(100 * factor * (window.devicePixelRatio || 1)) + " %";
  }
  function zoom(by, x, y) {
    const next = Math.min(16, Math.max(1, state.zoom * by)), ratio = next / state.zoom;
    state.x = x - (x - state.x) * ratio; state.y = y - (y - state.y) * ratio; state.zoom = next; draw();
  }
  const at = event => { const size = stage.getBoundingClientRect(); return [event.clientX - size.left, event.clientY - size.top]; };
  stage.addEventListener("wheel", event => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...at(event)); }, { passive: false });
  const pointers = new Map(); let onHandle = false, start = [0, 0];
  stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); pointers.set(event.pointerId, start = at(event)); onHandle = event.target === handle && pointers.size === 1; });
  stage.addEventListener("pointermove", event => {
    if (!pointers.has(event.pointerId)) return;
    const before = pointers.get(event.pointerId), now = at(event);
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const length = point => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoom(length(now) / (length(before) || 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (onHandle || state.zoom === 1) {
      // The first touch of a swipe that is about to scroll the page.
      if (!onHandle && event.pointerType === "touch" && Math.abs(now[1] - start[1]) > Math.abs(now[0] - start[0])) return;
      state.split = Math.min(1, Math.max(0, now[0] / stage.clientWidth));
    } else { state.x += now[0] - before[0]; state.y += now[1] - before[1]; }
    pointers.set(event.pointerId, now); draw();
  });
  ["pointerup", "pointercancel"].forEach(kind => stage.addEventListener(kind, event => pointers.delete(event.pointerId)));
  stage.addEventListener("keydown", event => {
    const move = { ArrowLeft: -.02, ArrowRight: .02 }[event.key], by = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 }[event.key];
    if (move) state.split = Math.min(1, Math.max(0, state.split + move));
    else if (by) return event.preventDefault(), zoom(by, stage.clientWidth / 2, stage.clientHeight / 2);
    else if (event.key === "0") Object.assign(state, { zoom: 1, x: 0, y: 0 });
    else return;
    event.preventDefault(); draw();
  });
  new ResizeObserver(draw).observe(stage);
  return root;
}
