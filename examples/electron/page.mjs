const form = document.querySelector("form");
const prompt = document.querySelector("input");
const answer = document.querySelector("p");

window.addEventListener("message", ({ data, source, ports: [port] }) => {
  if (source !== window || data !== "connected") return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer.textContent = prompt.value;
    port.postMessage({ prompt: prompt.value, maxTokens: 48 });
  });
  port.onmessage = ({ data: { text = "", done, error } }) => {
    answer.append(error === undefined ? text : ` [${error}]`);
    form.classList.toggle("done", done === true);
  };
  document.querySelector("button").disabled = false;
});
