import { app } from '../../../scripts/app.js'

const COLORS = {
  LATENTSYNC_MODEL: '#9575cd',
  LATENTSYNC_FACE_TRACK: '#26a69a',
  LATENTSYNC_AUDIO_EMBEDS: '#c0ca33',
  LATENTSYNC_LIPS: '#ec407a'
}

// A palette clears the colors of types that it does not have. A palette that has one wins.
function keepColor(colors, type, color) {
  let shown = color
  Object.defineProperty(colors, type, {
    get: () => shown,
    set: (given) => { shown = given || color },
    configurable: true,
    enumerable: true
  })
}

app.registerExtension({
  name: 'LatentSync.SocketColors',
  setup() {
    for (const [type, color] of Object.entries(COLORS)) {
      keepColor(app.canvas.default_connection_color_byType, type, color)
      keepColor(app.canvas.constructor.link_type_colors, type, color)
    }
    const style = document.createElement('style')
    const variables = Object.entries(COLORS).map(([type, color]) => `--color-datatype-${type}: ${color};`)
    style.textContent = `:root { ${variables.join(' ')} }`
    document.head.append(style)
  }
})
