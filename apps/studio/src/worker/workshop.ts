import type { WorkshopCalls } from "../protocol.js";
import { serve } from "../rpc.js";

// One job, then the page ends this worker. Each brings its own code.

serve<WorkshopCalls>({
  async compress(request, context) {
    const { compress } = await import("./compress.js");
    return compress(request, context);
  },
  async report(location) {
    const { report } = await import("./report.js");
    return report(location);
  },
  async export(request, context) {
    const { exported } = await import("./export.js");
    return exported(request, context);
  },
});
