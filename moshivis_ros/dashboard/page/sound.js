// The browser as the robot's head: its microphone out, the robot's voice in.
"use strict";

const RATE = 24000; // of the robot's voice
const AHEAD = 0.15; // seconds of it that wait, so that a late message makes no gap

// Runs beside the page: blocks of 20 to 40 ms of what the microphone hears, silence while the button is not held.
const MICROPHONE = `
  registerProcessor("microphone", class extends AudioWorkletProcessor {
    constructor() {
      super();
      this.open = false;
      this.block = new Int16Array(1024);
      this.filled = 0;
      this.port.onmessage = (event) => { this.open = event.data; };
    }
    process(inputs) {
      const heard = inputs[0][0];
      for (let k = 0; k < 128; k++) {
        const sample = this.open && heard ? Math.max(-1, Math.min(1, heard[k])) : 0;
        this.block[this.filled++] = Math.round(sample * 32767);
        if (this.filled === this.block.length) {
          this.port.postMessage(this.block.buffer.slice(0));
          this.filled = 0;
        }
      }
      return true;
    }
  });`;

export class Microphone {
  // send: called with messages for the robot, ArrayBuffer: the rate (uint32), samples (int16).
  constructor(send) {
    this.send = send;
    this.node = null;
  }

  // From now on the robot hears this browser: silence until hold(true).
  async open() {
    if (this.node) return;
    if (!navigator.mediaDevices) {
      throw new Error("browsers give the microphone to localhost and to HTTPS only: start the node with tls:=true");
    }
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: false, autoGainControl: true, channelCount: 1 },
    });
    const context = new AudioContext();
    await context.resume();
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([MICROPHONE], { type: "text/javascript" })));
    const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
    node.port.onmessage = (event) => {
      const message = new Uint8Array(4 + event.data.byteLength);
      new DataView(message.buffer).setUint32(0, context.sampleRate, true);
      message.set(new Uint8Array(event.data), 4);
      this.send(message.buffer);
    };
    context.createMediaStreamSource(stream).connect(node);
    this.node = node;
  }

  hold(held) {
    if (this.node) this.node.port.postMessage(held);
  }
}

export class Loudspeaker {
  constructor() {
    this.context = null;
    this.playing = new Set();
    this.end = 0;
  }

  start() {
    this.context = this.context || new AudioContext();
    this.context.resume();
  }

  // samples: Int16Array
  play(samples) {
    if (!this.context) return;
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    const channel = buffer.getChannelData(0);
    for (let k = 0; k < samples.length; k++) channel[k] = samples[k] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const now = this.context.currentTime;
    if (this.end < now) this.end = now + AHEAD;
    source.start(this.end);
    this.end += buffer.duration;
    this.playing.add(source);
    source.onended = () => this.playing.delete(source);
  }

  // What waits is not meant any more.
  flush() {
    for (const source of this.playing) source.stop();
    this.playing.clear();
    this.end = 0;
  }
}
