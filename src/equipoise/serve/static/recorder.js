// Records from the camera and the microphone into a file.

export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
}

// Ask for the devices, show the picture in `preview`, record until `stop` is called or the time is over.
// Resolves with {stop, file}: `file` is a promise.
export async function record(withVideo, preview, seconds, ticked) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: withVideo });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const since = performance.now();
  const clock = setInterval(() => {
    const passed = (performance.now() - since) / 1000;
    ticked(passed);
    if (passed >= seconds) stop();
  }, 200);

  function stop() {
    if (recorder.state !== "inactive") recorder.stop();
  }

  const file = new Promise((resolve) => {
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      clearInterval(clock);
      stream.getTracks().forEach((track) => track.stop());
      preview.srcObject = null;
      const type = recorder.mimeType.split(";")[0];
      resolve(new File(pieces, `recording.${type.split("/")[1]}`, { type }));
    };
  });
  preview.hidden = !withVideo;
  if (withVideo) {
    preview.srcObject = stream;
    await preview.play();
  }
  recorder.start();
  return { stop, file };
}
