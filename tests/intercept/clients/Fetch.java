import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

class Fetch {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        var answer = HttpClient.newHttpClient()
            .send(request, HttpResponse.BodyHandlers.ofString());
        var seen = answer.headers().firstValue("x-transformed").orElse("no");
        System.out.println(answer.statusCode() + " " + seen + " " + answer.body()
            + " " + answer.version());
    }
}
