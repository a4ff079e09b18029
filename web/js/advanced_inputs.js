import { app } from '../../../scripts/app.js'

// Nodes 2.0 shows the advanced inputs of a node when the user asks for them. The canvas would always show them.
// LiteGraph's menu of a node has "Show Advanced" for widgets that are marked as advanced. It reserves space for such a
// widget until the widget is hidden, too. A connected input stays visible. The page and other
// extensions can still hide a widget.
function hideUntilAsked(node, widget) {
  let advanced = true
  let { hidden } = widget
  const isOptional = () =>
    advanced &&
    !app.extensionManager.setting.get('Comfy.Node.AlwaysShowAdvancedWidgets') &&
    node.getSlotFromWidget(widget)?.link == null
  Object.defineProperties(widget, {
    advanced: {
      get: isOptional,
      set: (given) => {
        advanced = given
      },
      configurable: true
    },
    hidden: {
      get: () => hidden || (!LiteGraph.vueNodesMode && !node.showAdvanced && isOptional()),
      set: (given) => {
        hidden = given
      },
      configurable: true
    }
  })
}

app.registerExtension({
  name: 'latentsyncnodes.advancedInputs',
  nodeCreated(node) {
    if (!node.comfyClass.startsWith('LatentSync')) return
    for (const widget of node.widgets ?? []) if (widget.options?.advanced) hideUntilAsked(node, widget)
  }
})
