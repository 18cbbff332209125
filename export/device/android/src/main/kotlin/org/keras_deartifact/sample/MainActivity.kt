package org.keras_deartifact.sample

import android.annotation.SuppressLint
import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.media.MediaMetadataRetriever
import android.net.Uri
import android.os.Bundle
import android.view.MotionEvent
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import java.util.concurrent.Executors

/** Picks a picture, or a video for its first frame, and restores it; as long as a finger is on it, it is as it was. */
class MainActivity : Activity() {
    // One thread: a restorer takes one picture at a time, and its GPU context belongs to the thread that made it.
    private val worker = Executors.newSingleThreadExecutor()
    private var restorer: Restorer? = null
    private var before: Bitmap? = null
    private var after: Bitmap? = null
    private lateinit var view: ImageView
    private lateinit var text: TextView

    @SuppressLint("ClickableViewAccessibility", "SetTextI18n")
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        view = ImageView(this)
        view.setOnTouchListener { _, event ->
            val held = event.action != MotionEvent.ACTION_UP && event.action != MotionEvent.ACTION_CANCEL
            view.setImageBitmap(if (held) before else after ?: before)
            true
        }
        text = TextView(this)
        val button = Button(this)
        button.text = "Pick a picture or a video"
        button.setOnClickListener { pick() }
        val column = LinearLayout(this)
        column.orientation = LinearLayout.VERTICAL
        column.fitsSystemWindows = true
        column.addView(button)
        column.addView(text)
        column.addView(view, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 0, 1f))
        setContentView(column)
    }

    private fun pick() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT)
        intent.addCategory(Intent.CATEGORY_OPENABLE)
        intent.type = "*/*"
        intent.putExtra(Intent.EXTRA_MIME_TYPES, arrayOf("image/*", "video/*"))
        startActivityForResult(intent, PICK)
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        val uri = data?.data
        if (requestCode == PICK && resultCode == RESULT_OK && uri != null) worker.execute { restore(uri) }
    }

    private fun restore(uri: Uri) {
        try {
            val picture = read(uri)
            runOnUiThread { show(picture, null, "${picture.width}x${picture.height} ...") }
            val restorer = restorer ?: Restorer(assets, ASSET).also { restorer = it }
            val started = System.nanoTime()
            val restored = restorer.restore(picture)
            val milliseconds = (System.nanoTime() - started) / 1_000_000
            val size = "${picture.width}x${picture.height}"
            runOnUiThread { show(picture, restored, "$size, $milliseconds ms, ${restorer.accelerator}") }
        } catch (error: Exception) {
            // Whatever it is, a file that is no picture or a model that does not run, it belongs on the screen.
            runOnUiThread { text.text = "error: ${error.message}" }
        }
    }

    private fun read(uri: Uri): Bitmap {
        if (contentResolver.getType(uri)?.startsWith("video/") == true) {
            val retriever = MediaMetadataRetriever()
            try {
                retriever.setDataSource(this, uri)
                val frame = checkNotNull(retriever.getFrameAtTime(0)) { "the video has no frame" }
                return frame.copy(Bitmap.Config.ARGB_8888, false)
            } finally {
                retriever.release()
            }
        }
        val decoded =
            ImageDecoder.decodeBitmap(ImageDecoder.createSource(contentResolver, uri)) { decoder, _, _ ->
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            }
        return decoded.copy(Bitmap.Config.ARGB_8888, false)
    }

    private fun show(picture: Bitmap, restored: Bitmap?, line: String) {
        before = picture
        after = restored
        view.setImageBitmap(restored ?: picture)
        text.text = line
    }

    override fun onDestroy() {
        worker.execute { restorer?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private companion object {
        const val ASSET = "restorer.tflite"
        const val PICK = 1
    }
}
