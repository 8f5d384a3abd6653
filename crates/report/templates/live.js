(() => {
  const every = Number(document.currentScript.dataset.seconds) * 1000;
  const note = document.querySelector(".live");
  let tag = "";
  const key = (e) => e.id || e.tagName;
  // Only what changed is replaced, so that focus, open tables and what was scrolled stay as they are.
  function take(now, next) {
    const opened = [...now.querySelectorAll("details")].map((e) => e.open);
    const scrolled = [...now.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
    now.innerHTML = next.innerHTML;
    now.querySelectorAll("details").forEach((e, at) => { e.open = Boolean(opened[at]); });
    now.querySelectorAll(".scroll").forEach((e, at) => { e.scrollLeft = scrolled[at] || 0; });
  }
  function show(text) {
    const next = new DOMParser().parseFromString(text, "text/html");
    document.title = next.title;
    const parts = (of) => [...of.querySelectorAll("header.top, nav, main > *")];
    const [mine, theirs] = [parts(document), parts(next)];
    if (mine.map(key).join() !== theirs.map(key).join()) {
      for (const name of ["header.top", "nav", "main"]) take(document.querySelector(name), next.querySelector(name));
      return;
    }
    const plain = (e) => e.innerHTML.replaceAll('<details open="">', "<details>");
    mine.forEach((e, at) => { if (plain(e) !== plain(theirs[at])) take(e, theirs[at]); });
    if (!next.querySelector(".live")) note.remove();
  }
  async function look() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) { tag = answer.headers.get("ETag") || ""; show(await answer.text()); }
      note.textContent = answer.ok || answer.status === 304 ? note.dataset.live : note.dataset.gone;
    } catch {
      note.textContent = note.dataset.gone;
    }
    if (note.isConnected) setTimeout(look, every);
  }
  setTimeout(look, every);
})();
