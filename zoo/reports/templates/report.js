"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  // The colours of Okabe and Ito, which colour-blind people can tell apart; on a dark page the dark ones are lighter.
  const colors = {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1f24"],
    dark: ["#3f9fdc", "#ef7b3a", "#1fc598", "#dd94bd", "#e9ae33", "#8fd0f7", "#e6e9ed"],
  };
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const strokes = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "12 4", longdashdot: "12 3 2 3" };
  const isMany = data.strategies.length > data.few;
  const isOn = data.strategies.map((_, i) => i < data.few);
  const drawn = new Map(); // figures that are drawn, by id, with the number of the view that they show
  const byId = new Map(data.figures.map((figure) => [figure.id, figure]));
  const grey = document.querySelector("#grey input");
  grey.checked = isMany;

  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const styleOf = (i) => {
    const palette = colors[isDark() ? "dark" : "light"];
    return { color: palette[i % palette.length], dash: dashes[Math.floor(i / palette.length) % dashes.length] };
  };
  // plotly reads texts as markup.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Figures

  function traces(figure, view) {
    const shape = figure.kind === "steps" ? "hv" : "linear";
    const background = [], bands = [], lines = [];
    const numOn = isOn.filter(Boolean).length;
    for (const series of view.series) {
      const on = isOn[series.strategy];
      if (!on && !grey.checked) continue;
      const name = escaped(data.strategies[series.strategy]);
      const style = on ? { ...styleOf(series.strategy), width: 2 } : { color: css("--grey"), dash: "solid", width: 1 };
      const line = {
        type: "scatter", mode: "lines", x: series.x, y: series.y, name, meta: series.strategy,
        line: { ...style, shape }, showlegend: false, hovertemplate: `${name}<br>%{x:.4~g}: %{y:.4~g}<extra></extra>`,
      };
      (on ? lines : background).push(line);
      if (on && series.low && numOn <= data.few + 2) {
        const back = [...series.x].reverse();
        bands.push({
          type: "scatter", mode: "lines", x: [...series.x, ...back], y: [...series.high, ...[...series.low].reverse()],
          fill: "toself", fillcolor: style.color + "26", line: { width: 0 }, hoverinfo: "skip", showlegend: false,
          meta: series.strategy,
        });
      }
      if (on && series.end) {
        lines.push({
          type: "scatter", mode: "markers", x: [series.end[0]], y: [series.end[1]], meta: series.strategy,
          marker: { symbol: "x-thin", size: 9, line: { width: 2, color: style.color } }, hoverinfo: "skip",
          showlegend: false, cliponaxis: false,
        });
      }
    }
    return [...background, ...bands, ...lines];
  }

  function layout(figure, view) {
    const axis = { gridcolor: css("--line"), linecolor: css("--quiet"), zeroline: false, automargin: true };
    return {
      template: { layout: { paper_bgcolor: css("--page"), plot_bgcolor: css("--page"), font: { color: css("--text") } } },
      font: { family: getComputedStyle(document.body).fontFamily, size: 13 },
      margin: { l: 60, r: 15, t: 10, b: 45 },
      hovermode: "closest",
      hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--text") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--link") },
      xaxis: { ...axis, title: { text: view.label }, type: figure.kind === "steps" ? "log" : "linear" },
      yaxis: {
        ...axis, title: { text: escaped(figure.y) }, type: figure.log ? "log" : "linear",
        ...(figure.kind === "steps" ? { range: [-0.02, 1.02] } : {}),
      },
      uirevision: `${drawn.get(figure.id)} ${figure.log}`, // keeps the zoom while curves are switched on and off
    };
  }

  function draw(id) {
    const figure = byId.get(id), place = document.getElementById(id);
    const isFirst = !drawn.has(id);
    if (isFirst) drawn.set(id, 0);
    const view = figure.views[drawn.get(id)];
    const config = {
      responsive: true, displaylogo: false, plotlyServerURL: "", // nothing is sent anywhere
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    };
    Plotly.react(place, traces(figure, view), layout(figure, view), config);
    if (isFirst) {
      place.on("plotly_click", (event) => {
        const strategy = event.points[0].data.meta;
        if (!isOn[strategy]) { isOn[strategy] = true; refresh(); }
      });
    }
  }

  const refresh = () => { legend(); for (const id of drawn.keys()) draw(id); };

  function tabs() {
    for (const place of document.querySelectorAll(".tabs")) {
      const figure = byId.get(place.dataset.figure);
      if (!figure) continue;
      figure.views.forEach((view, number) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `against ${view.label}`;
        button.setAttribute("aria-pressed", number === 0);
        button.addEventListener("click", () => {
          for (const other of place.querySelectorAll("button:not(.log)")) other.setAttribute("aria-pressed", other === button);
          drawn.set(figure.id, number);
          draw(figure.id);
        });
        place.append(button);
      });
      const log = document.createElement("button");
      log.type = "button";
      log.className = "log";
      log.textContent = "logarithmic";
      log.setAttribute("aria-pressed", figure.log);
      log.addEventListener("click", () => {
        figure.log = !figure.log;
        log.setAttribute("aria-pressed", figure.log);
        draw(figure.id);
      });
      place.append(log);
    }
  }

  // The legend, which belongs to all figures

  function legend() {
    const list = document.getElementById("strategies");
    const wanted = document.getElementById("filter").value.toLowerCase();
    if (!list.children.length) {
      data.strategies.forEach((name, i) => {
        const item = document.createElement("li"), button = document.createElement("button");
        const text = document.createElement("span");
        button.type = "button";
        button.innerHTML = '<svg viewBox="0 0 30 8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" stroke-width="2.5"/></svg>';
        text.textContent = name;
        button.append(text);
        button.addEventListener("click", () => { isOn[i] = !isOn[i]; refresh(); });
        button.addEventListener("dblclick", () => { isOn.fill(false); isOn[i] = true; refresh(); });
        item.append(button);
        list.append(item);
      });
    }
    [...list.children].forEach((item, i) => {
      const button = item.firstChild, line = button.querySelector("line"), { color, dash } = styleOf(i);
      button.setAttribute("aria-pressed", isOn[i]);
      line.setAttribute("stroke", isOn[i] ? color : css("--quiet"));
      line.setAttribute("stroke-dasharray", strokes[dash]);
      item.hidden = !data.strategies[i].toLowerCase().includes(wanted);
    });
  }

  // Tables

  function sort(table, column, header) {
    const descending = header.hasAttribute("aria-sort")
      ? header.getAttribute("aria-sort") === "ascending"
      : header.dataset.first === "descending";
    const key = (row) => {
      const cell = row.cells[column], text = cell.textContent.trim();
      if (cell.dataset.value) return [0, Number(cell.dataset.value), ""];
      return cell.matches("th") || text !== "" && !cell.matches(".failed, .number") ? [1, 0, text] : [2, 0, ""];
    };
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row) }));
    rows.sort(({ key: a }, { key: b }) => {
      const difference = a[1] - b[1] || a[2].localeCompare(b[2], undefined, { numeric: true });
      return a[0] - b[0] || (descending ? -difference : difference); // cells without a value stay below
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => sort(table, column, header));
    });
  }

  // Light and dark

  const theme = document.getElementById("theme");
  function show(name) {
    if (name) root.dataset.theme = name;
    theme.textContent = isDark() ? "light" : "dark";
    refresh();
  }
  theme.addEventListener("click", () => {
    const name = isDark() ? "light" : "dark";
    try { localStorage.setItem("es-zoo-theme", name); } catch { /* a browser may keep nothing for local files */ }
    show(name);
  });
  system.addEventListener("change", () => show());

  document.getElementById("filter").addEventListener("input", legend);
  grey.addEventListener("change", refresh);
  for (const button of document.querySelectorAll("#choices button")) {
    button.addEventListener("click", () => {
      const choice = button.dataset.choice;
      data.strategies.forEach((_, i) => { isOn[i] = choice === "all" || (choice === "best" && i < data.few); });
      refresh();
    });
  }
  if (window.matchMedia("(max-width: 60rem)").matches) document.getElementById("legend").open = false;

  tabs();
  let kept = null;
  try { kept = localStorage.getItem("es-zoo-theme"); } catch { /* as above */ }
  show(kept === "light" || kept === "dark" ? kept : undefined);
  // A figure is drawn when it comes near the window: a report may have dozens of them.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target.id); }
    }
  }, { rootMargin: "600px" });
  for (const id of byId.keys()) near.observe(document.getElementById(id));
  let before = null;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme || "";
    root.dataset.theme = "light";
    for (const id of byId.keys()) draw(id);
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    show();
  });
})();
