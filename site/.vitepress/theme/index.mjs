import DefaultTheme from "vitepress/theme";
import Demo from "./Demo.vue";
import Start from "./Start.vue";
import "./contrast.css";

export default {
  extends: DefaultTheme,
  enhanceApp({ app }) {
    app.component("Demo", Demo);
    app.component("Start", Start);
  },
};
