// Curves of the last minute on a canvas. A chart draws itself anew when asked; nothing moves between.
"use strict";

const SECONDS = 60;
const MARKS = { refresh: "#4a8", defer: "#fa3", keep: "#667" };

export class Chart {
  // top: the value at the upper edge; it grows with larger ones. limit: a value drawn as a line with its name.
  constructor(canvas, colours, top, limit = null) {
    this.canvas = canvas;
    this.colours = colours;
    this.top = top;
    this.limit = limit;
    this.curves = colours.map(() => []);
    this.marks = [];
  }

  add(curve, time, value) {
    this.curves[curve].push([time, value]);
  }

  mark(time, decision, words) {
    this.marks.push([time, decision, words]);
  }

  draw(now) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const since = now - SECONDS;
    const old = (point) => point[0] < since - 2;
    let top = this.top;
    for (const curve of this.curves) {
      while (curve.length && old(curve[0])) curve.shift();
      for (const [, value] of curve) top = Math.max(top, value);
    }
    while (this.marks.length && old(this.marks[0])) this.marks.shift();
    const x = (time) => ((time - since) / SECONDS) * width;
    const y = (value) => height - 2 - (Math.max(0, value) / top) * (height - 6);
    pen.font = "11px system-ui, sans-serif";
    let free = -1;
    for (const [time, decision, words] of this.marks) {
      pen.strokeStyle = pen.fillStyle = MARKS[decision] || "#667";
      pen.lineWidth = decision === "keep" ? 1 : 2;
      pen.beginPath();
      pen.moveTo(x(time), 0);
      pen.lineTo(x(time), height);
      pen.stroke();
      const wide = pen.measureText(words).width;
      const left = x(time) + 3 + wide > width ? x(time) - 3 - wide : x(time) + 3;
      if (decision !== "keep" && left > free) {
        pen.fillText(words, left, 11);
        free = left + 3 + wide;
      }
    }
    if (this.limit) {
      pen.strokeStyle = pen.fillStyle = "#f66";
      pen.lineWidth = 1;
      pen.setLineDash([4, 3]);
      pen.beginPath();
      pen.moveTo(0, y(this.limit[0]));
      pen.lineTo(width, y(this.limit[0]));
      pen.stroke();
      pen.setLineDash([]);
      pen.fillText(this.limit[1], width - 5 - pen.measureText(this.limit[1]).width, y(this.limit[0]) + 12);
    }
    pen.lineWidth = 1.5;
    this.curves.forEach((curve, number) => {
      pen.strokeStyle = this.colours[number];
      pen.beginPath();
      let before = -Infinity;
      for (const [time, value] of curve) {
        if (time - before > 3) pen.moveTo(x(time), y(value));
        else pen.lineTo(x(time), y(value));
        before = time;
      }
      pen.stroke();
    });
  }
}
