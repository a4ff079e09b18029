import { app } from '../../../scripts/app.js'

// A subgraph shows the result of an inner node as a picture, until the page has drawn that node once. This marks the
// result as a video from the start.
app.registerExtension({
  name: 'latentsyncnodes.videoPreview',
  nodeCreated(node) {
    if (node.comfyClass === 'LatentSyncVideoCombine') node.previewMediaType = 'video'
  }
})
