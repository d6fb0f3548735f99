// Read-outs on charts, and the table of completions. The page is complete without it; nothing here is fetched.
(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const minus = (text) => text.replace(/-/g, "\u2212");

  /** As the page's own numbers: `digits` significant ones. */
  function format(value, digits) {
    if (value === null || value === undefined) return "\u2013";
    if (value === 0) return "0";
    const rounded = Number(value.toPrecision(digits));
    const size = Math.abs(rounded);
    if (size < 1e-3 || size >= 1e9) return minus(value.toExponential(Math.min(2, digits - 1)).replace("e+", "e"));
    if (Number.isInteger(value) || size >= 10 ** (digits - 1)) return minus(Math.round(value).toLocaleString("en-US"));
    if (Number.isInteger(rounded) && Math.abs(rounded - value) < 1e-9 * size) return minus(String(rounded));
    return minus(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
  }

  /** Index of the step nearest to `step`. */
  function nearest(steps, step) {
    let low = 0;
    let high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle;
      else high = middle;
    }
    return Math.abs(steps[low] - step) <= Math.abs(steps[high] - step) ? low : high;
  }

  const svgNode = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  /** The charts of one run that share an axis show the same step at the same time. */
  class Chart {
    constructor(figure, data) {
      this.figure = figure;
      this.data = data;
      this.svg = figure.querySelector("svg");
      this.values = [...figure.querySelectorAll("[data-line]")];
      this.place = figure.querySelector("[data-at]");
      this.initial = [...this.values, this.place].map((node) => node.textContent);
      this.steps = [...new Set(data.lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    }
    x(step) {
      const [left, right] = this.data.box;
      const [low, high] = this.data.x;
      return left + ((step - low) / (high - low)) * (right - left);
    }
    y(value) {
      const [, , top, bottom] = this.data.box;
      const at = this.data.log ? Math.log : Number;
      const [low, high] = this.data.y.map(at);
      return bottom - ((at(value) - low) / (high - low)) * (bottom - top);
    }
    stepAt(clientX) {
      const rect = this.svg.getBoundingClientRect();
      const [left, right] = this.data.box;
      const [low, high] = this.data.x;
      const position = ((clientX - rect.left) / rect.width) * this.svg.viewBox.baseVal.width;
      return low + ((position - left) / (right - left)) * (high - low);
    }
    show(step) {
      if (this.steps.length === 0) return;
      const [, , top, bottom] = this.data.box;
      this.layer ??= this.svg.appendChild(svgNode("g", { "aria-hidden": "true" }));
      this.layer.replaceChildren();
      const shown = this.steps[nearest(this.steps, step)];
      const place = this.x(shown);
      this.layer.append(svgNode("path", { class: "cursor", d: `M${place} ${top}V${bottom}` }));
      this.data.lines.forEach((line, i) => {
        if (line.steps.length === 0) return;
        const index = nearest(line.steps, shown);
        const value = line.values[index];
        this.values[i].textContent = format(value, 4);
        if (value === null || !Number.isFinite(this.y(value))) return;
        this.layer.append(svgNode("circle", { class: "mark", cx: this.x(line.steps[index]), cy: this.y(value), r: 3.4 }));
      });
      this.place.textContent = shown.toLocaleString("en-US");
      this.shown = shown;
    }
    reset() {
      this.layer?.replaceChildren();
      [...this.values, this.place].forEach((node, i) => {
        node.textContent = this.initial[i];
      });
      this.shown = undefined;
    }
  }

  const chartData = read("chart-data");
  for (const run of document.querySelectorAll(".run")) {
    const charts = [...run.querySelectorAll("[data-chart]")].map((figure) => new Chart(figure, chartData[figure.dataset.chart]));
    for (const chart of charts) {
      const group = charts.filter((other) => other.data.axis === chart.data.axis);
      const plot = chart.figure.querySelector(".plot");
      const show = (step) => {
        for (const other of group) other.show(step);
      };
      const reset = () => {
        for (const other of group) other.reset();
      };
      plot.addEventListener("pointermove", (event) => show(chart.stepAt(event.clientX)));
      plot.addEventListener("pointerdown", (event) => show(chart.stepAt(event.clientX)));
      plot.addEventListener("pointerleave", (event) => {
        // A finger that lifts leaves too, and its owner wants to read on.
        if (event.pointerType === "mouse") reset();
      });
      plot.addEventListener("blur", reset);
      if (chart.steps.length < 2) continue;
      plot.tabIndex = 0;
      plot.setAttribute("role", "slider");
      plot.setAttribute("aria-label", `${chart.svg.getAttribute("aria-label")}. Arrow keys read values.`);
      plot.setAttribute("aria-valuemin", chart.steps[0]);
      plot.setAttribute("aria-valuemax", chart.steps[chart.steps.length - 1]);
      plot.setAttribute("aria-valuenow", chart.steps[chart.steps.length - 1]);
      plot.addEventListener("keydown", (event) => {
        const last = chart.steps.length - 1;
        const now = chart.shown === undefined ? last : nearest(chart.steps, chart.shown);
        const jump = Math.max(1, Math.round(last / 10));
        const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, ArrowDown: now - 1, ArrowUp: now + 1, PageDown: now - jump, PageUp: now + jump, Home: 0, End: last };
        if (event.key === "Escape") reset();
        if (!(event.key in moves)) return;
        event.preventDefault();
        show(chart.steps[Math.max(0, Math.min(last, moves[event.key]))]);
        plot.setAttribute("aria-valuenow", chart.shown);
        const values = [...chart.figure.querySelectorAll(".legend li:not(.at)")].map((item) => item.textContent.trim());
        plot.setAttribute("aria-valuetext", `${chart.data.axis} ${chart.shown}: ${values.join(", ")}`);
      });
    }
  }

  const rolloutData = read("rollout-data");
  for (const section of document.querySelectorAll("[data-rollouts]")) {
    const { steps, columns, decimals } = rolloutData[section.dataset.rollouts];
    const body = section.querySelector("tbody");
    const heads = [...section.querySelectorAll("th")];
    const slider = section.querySelector("[data-step]");
    const filter = section.querySelector("[data-filter]");
    let sort = { column: -1, direction: -1 };

    const textCell = (text) => {
      const td = document.createElement("td");
      const div = document.createElement("div");
      div.className = "text";
      div.textContent = text;
      td.append(div);
      return td;
    };
    const numberCell = (value, column) => {
      const td = document.createElement("td");
      td.className = "number";
      td.dataset.label = columns[column];
      td.textContent = value === null ? "\u2013" : minus(value.toFixed(decimals[column]));
      return td;
    };
    const update = () => {
      const { step, rows } = steps[Number(slider.value)];
      const words = filter.value.toLowerCase();
      const kept = rows.filter(([prompt, completion]) => `${prompt}\n${completion}`.toLowerCase().includes(words));
      if (sort.column >= 0)
        kept.sort((a, b) => {
          const [left, right] = [a[2][sort.column], b[2][sort.column]];
          if (left === null || right === null) return (left === null) - (right === null);
          return sort.direction * (left - right);
        });
      body.replaceChildren(
        ...kept.map(([prompt, completion, values]) => {
          const tr = document.createElement("tr");
          tr.append(textCell(prompt), textCell(completion), ...values.map(numberCell));
          return tr;
        }),
      );
      const name = step.toLocaleString("en-US");
      section.querySelector("[data-step-name]").textContent = name;
      slider.setAttribute("aria-valuetext", `step ${name}`);
      section.querySelector("[data-count]").textContent = `${kept.length} of ${rows.length} completions`;
    };
    section.querySelector(".controls").hidden = false;
    section.querySelector(".static").hidden = true;
    slider.disabled = steps.length < 2;
    slider.addEventListener("input", update);
    filter.addEventListener("input", update);
    section.querySelector("[data-full]").addEventListener("change", (event) => section.classList.toggle("full", event.target.checked));
    for (const button of section.querySelectorAll("[data-sort]")) {
      button.disabled = false;
      button.addEventListener("click", () => {
        const column = Number(button.dataset.sort);
        sort = { column, direction: sort.column === column ? -sort.direction : -1 };
        for (const head of heads) {
          if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
        }
        button.closest("th").setAttribute("aria-sort", sort.direction < 0 ? "descending" : "ascending");
        update();
      });
    }
    update();
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
