import { app } from '../../../scripts/app.js'

const COLORS = {
  LATENTSYNC_MODEL: '#9575cd',
  LATENTSYNC_FACE_TRACK: '#26a69a',
  LATENTSYNC_AUDIO_EMBEDS: '#c0ca33',
  LATENTSYNC_LIPS: '#ec407a'
}

// Nodes 2.0 reads the color of a type from this variable, and the canvas from tables.
function setVariable(type, color) {
  document.documentElement.style.setProperty(`--color-datatype-${type}`, color)
}

// When ComfyUI loads a palette, it clears the colors of types that the palette does not have: first those of the
// tables, and then the variables. A color of the palette wins.
function keepColor(table, type, color) {
  let shown = color
  Object.defineProperty(table, type, {
    get: () => shown,
    set: (given) => {
      shown = given || color
      queueMicrotask(() => setVariable(type, shown))
    },
    configurable: true,
    enumerable: true
  })
}

app.registerExtension({
  name: 'latentsyncnodes.socketColors',
  setup() {
    for (const [type, color] of Object.entries(COLORS)) {
      keepColor(app.canvas.default_connection_color_byType, type, color)
      keepColor(app.canvas.constructor.link_type_colors, type, color)
      setVariable(type, color)
    }
  }
})
